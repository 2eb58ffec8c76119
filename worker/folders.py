"""Job folders: JOBS/JOB_ID/FENCE/. A worker that lost its lease can only write below its own fence.

The files:

    JOBS/JOB_ID/FENCE/process.json      the running process and its supervisor
    JOBS/JOB_ID/FENCE/run/              a training run: checkpoints, log.jsonl, delta
    JOBS/JOB_ID/FENCE/work/             files a benchmark derives from its data
    JOBS/JOB_ID/FENCE/links/            links to shards that lie in several folders
    JOBS/JOB_ID/FENCE/report.html       the report of a job that has succeeded
    JOBS/JOB_ID/FENCE/results.json      an evaluation's results; baseline.json those of its baseline
    JOBS/JOB_ID/FENCE/results-0.json    a fine-tuning job's results on its first benchmark; baseline-0.json those of the
                                        version that it was compared with
"""

import json
import logging
import os
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from sds_clip.app.inside import inside
from sds_clip.app.store.records import Lease
from sds_clip.models.atomic import write_atomic
from sds_clip.models.run_files import CHECKPOINTS, LOG_FILE, checkpoints_in, read_whole, unfinished_in
from sds_clip.worker.identity import ProcessId

logger = logging.getLogger(__name__)

_PROCESS_FILE = "process.json"


@dataclass(frozen=True)
class Occupant:
    """The process that uses, or used, a folder, and its supervisor."""

    process: ProcessId
    supervisor: ProcessId


class JobFolder:
    """The folder of one attempt. Raises FilesOutside."""

    def __init__(self, jobs_dir: Path, lease: Lease) -> None:
        self._job = inside(jobs_dir, jobs_dir / lease.job_id)
        self._fence = lease.fence
        self.path = self._job / str(lease.fence)
        self.run, self.work, self.links = (self.path / name for name in ("run", "work", "links"))
        self.log = self.run / LOG_FILE
        self.scores = self._job / "scores"
        """What a diffusion model has scored for this job, whichever attempt computed it."""

    def open(self) -> None:
        """Create the folder. Raises OSError."""
        self.path.mkdir(parents=True, exist_ok=True)

    def occupy(self, occupant: Occupant) -> None:
        """Record the process that uses this folder, for a supervisor that starts after a crash. Raises OSError."""
        self.open()
        write_atomic(self.path / _PROCESS_FILE, json.dumps(asdict(occupant)), durable=False)

    def vacate(self) -> None:
        (self.path / _PROCESS_FILE).unlink(missing_ok=True)

    def take_over(self) -> int:
        """Link earlier attempts' newest whole checkpoint into this folder; returns its step, 0 if none.

        A checkpoint's files never change once they are named, so a hard link is as good as a copy, and
        outlives the folder it came from. If a checkpoint disappears meanwhile, the next older one is tried.
        """
        for step, _, source in sorted(self._earlier_checkpoints(), reverse=True):
            target = self.run / CHECKPOINTS / source.name
            aside = target.with_name(f".{source.name}")
            try:
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copytree(source, aside, copy_function=_link)
                if read_whole(aside) is None:
                    raise OSError(0, "it is incomplete")
                _copy_log(source.parent.parent / LOG_FILE, self.log)
                aside.rename(target)
            except OSError as error:  # includes shutil.Error
                logger.warning("The checkpoint %s is skipped: %s.", source, error.strerror or error)
                shutil.rmtree(aside, ignore_errors=True)
                continue
            return step
        return 0

    def has_checkpoint_after(self, step: int) -> bool:
        """Whether this attempt has written a checkpoint after `step`."""
        return any(found > step for found, _ in checkpoints_in(self.run / CHECKPOINTS))

    def keep_newest_checkpoint(self) -> None:
        """Remove a cancelled job's checkpoints except the newest whole one.

        Later attempts' checkpoints stay, because the job was retried.
        """
        attempts = [(self._fence, self.path), *self._earlier()]
        places = [folder / "run" / CHECKPOINTS for _, folder in attempts]
        found = sorted((checkpoint for place in places for checkpoint in checkpoints_in(place)), reverse=True)
        newest = next((folder for _, folder in found if len(found) == 1 or read_whole(folder)), None)
        unfinished = [folder for place in places for folder in unfinished_in(place)]
        for folder in [*(folder for _, folder in found if folder != newest), *unfinished]:
            shutil.rmtree(folder, ignore_errors=True)

    def drop_earlier(self) -> None:
        for _, folder in self._earlier():
            shutil.rmtree(folder, ignore_errors=True)

    def drop(self) -> None:
        """Remove this attempt's files except its results."""
        for folder in (self.run, self.work, self.links, self.scores):
            shutil.rmtree(folder, ignore_errors=True)

    def _earlier(self) -> Iterator[tuple[int, Path]]:
        for folder in list(self._job.glob("*")):  # empty if the job's files were deleted
            if folder.name.isdigit() and int(folder.name) < self._fence:
                yield int(folder.name), folder

    def _earlier_checkpoints(self) -> Iterator[tuple[int, int, Path]]:
        for fence, folder in self._earlier():
            for step, checkpoint in checkpoints_in(folder / "run" / CHECKPOINTS):
                yield step, fence, checkpoint


def occupants(jobs_dir: Path) -> Iterator[tuple[JobFolder, Occupant]]:
    """The folder of every attempt that records a running process."""
    for file in jobs_dir.glob(f"*/*/{_PROCESS_FILE}"):
        try:
            content = json.loads(file.read_text(encoding="utf-8"))
            occupant = Occupant(ProcessId(**content["process"]), ProcessId(**content["supervisor"]))
            lease = Lease(file.parent.parent.name, int(file.parent.name))
        except (OSError, ValueError, KeyError, TypeError):
            continue
        yield JobFolder(jobs_dir, lease), occupant


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # the file system has no hard links
        shutil.copyfile(source, target)


def _copy_log(source: Path, target: Path) -> None:
    if source.is_file():  # copied, not linked: lines will be appended
        shutil.copyfile(source, target)
