"""Hard links to the files of a backup, so that nobody removes them while they are read.

Versions, data sets and checkpoints never change once they have their names, so a link is as good as a copy. What
may change is copied: a training run's log, and the scores of an evaluation.
"""

import contextlib
import os
import shutil
import sqlite3
from operator import itemgetter
from pathlib import Path

from sds_clip.app.backup.named import Named, What, data_path
from sds_clip.app.backup.scratch import BackupError
from sds_clip.app.errors import FilesOutside
from sds_clip.app.jobs.checkpoints import attempts_in, checkpoint_folders
from sds_clip.models.run_files import LOG_FILE, read_whole

_SCORES = Path("scores", "kept.sqlite3")
_ASIDE = ".unfinished"


class Links:
    """Links below `folder`, under the paths of the files in the data folder."""

    def __init__(self, data_dir: Path, folder: Path) -> None:
        self._data_dir = data_dir
        self._folder = folder
        self.jobs_without_checkpoint: set[str] = set()
        """Jobs of which no complete checkpoint was found."""

    def take(self, named: Named) -> bool:
        """Link what a row names. False if it is not there. Raises OSError, BackupError."""
        try:
            if named.what is What.JOB:
                self._take_job(named.id)
                return True
            return bool([path for path in named.paths if self._take(path)])
        except FilesOutside as error:
            raise BackupError(f"The {named.what} {named.id}: {error.message}") from error

    def _take(self, path: str) -> bool:
        source, target = data_path(self._data_dir, path), self._folder / path
        if target.exists():
            return True
        aside = self._folder / _ASIDE
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir(parents=True)
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            _link(source, aside / "new")
        except FileNotFoundError:
            return False
        (aside / "new").rename(target)
        return True

    def _take_job(self, job_id: str) -> None:
        """Link a job's newest complete checkpoint. Copy the logs of its runs, and what it has scored so far."""
        job = data_path(self._data_dir, f"jobs/{job_id}")
        self.jobs_without_checkpoint.discard(job_id)
        # Of one step, the checkpoint of the last attempt.
        newest_first = sorted(checkpoint_folders(job), key=itemgetter(0))[::-1]
        if not any(self._take_checkpoint(checkpoint) for _, checkpoint in newest_first):
            self.jobs_without_checkpoint.add(job_id)
        for attempt in attempts_in(job):
            self._copy(attempt / "run" / LOG_FILE)
        if (job / _SCORES).exists():
            self._copy_scores(job / _SCORES)

    def _take_checkpoint(self, checkpoint: Path) -> bool:
        path = self._path(checkpoint)
        with contextlib.suppress(OSError):  # it was removed meanwhile
            if self._take(path):
                if read_whole(self._folder / path) is not None:
                    return True
                shutil.rmtree(self._folder / path)
        return False

    def _copy(self, file: Path) -> None:
        target = self._folder / self._path(file)
        target.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):
            shutil.copyfile(file, target)

    def _copy_scores(self, file: Path) -> None:
        """Copy the cache of scores as of one moment. It is only a cache, so it may also be left out."""
        target = self._folder / self._path(file)
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            with (
                contextlib.closing(sqlite3.connect(file)) as source,
                contextlib.closing(sqlite3.connect(target)) as copy,
            ):
                source.backup(copy)
        except sqlite3.Error:
            target.unlink(missing_ok=True)

    def _path(self, file: Path) -> str:
        return file.relative_to(self._data_dir).as_posix()


def _link(source: Path, target: Path) -> None:
    """Link a file, or a folder with all that is in it. Raises OSError; BackupError for a link or a device."""
    if source.is_symlink() or not (source.is_dir() or source.is_file()):
        if not source.exists():
            raise FileNotFoundError(source)
        raise BackupError(f"{source} is neither a plain file nor a folder. Remove it, and try again.")
    if source.is_dir():
        target.mkdir()
        for entry in source.iterdir():
            _link(entry, target / entry.name)
        return
    try:
        os.link(source, target)
    except FileNotFoundError:
        raise
    except OSError:  # the file system has no hard links
        shutil.copyfile(source, target)
