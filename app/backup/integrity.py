"""Compares the rows of the database with the files: what is missing or damaged, and what no row names."""

import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sds_clip.app.backup.named import FOLDERS, TABLES, Named, What, WrongPath, data_path, named_by
from sds_clip.app.datasets.folders import set_content
from sds_clip.app.datasets.hashes import first_wrong_file, hash_of
from sds_clip.app.errors import FilesOutside
from sds_clip.app.jobs.checkpoints import checkpoint_folders
from sds_clip.app.registry.manifest import MANIFEST_FILE, VersionError, read_manifest, verify
from sds_clip.app.store.database import Database
from sds_clip.app.store.records import VersionStatus
from sds_clip.app.store.transfer import Row, read_rows, snapshot
from sds_clip.models.run_files import DESCRIPTION_FILE, TENSORS_FILE, read_whole


@dataclass(frozen=True)
class Problem:
    """Something that a row names, and that is missing or damaged."""

    what: str
    id: str
    problem: str
    """What is wrong, and what to do."""


@dataclass(frozen=True)
class Report:
    """The result of a check."""

    checked: dict[str, int]
    """How much was looked at, by kind."""
    problems: Sequence[Problem]
    unnamed: Sequence[str]
    """Folders of no version, data set or job that the database knows, by their paths in the data folder."""


def check_integrity(database: Database, data_dir: Path, *, is_quick: bool = False) -> Report:
    """Look at everything that the rows name. With `is_quick`, nothing is hashed.

    It may run beside the service: what was deleted during the check is no problem.

    Raises: StoreUnavailable, ConfigurationError.
    """
    rows = _rows(database)
    checker = _Checker(data_dir, rows, is_quick)
    named, wrong = _named_by(rows)
    problems = [
        *_problems_of_aliases(rows),
        *wrong,
        *(found for each in named for found in checker.look(each)),
    ]
    unnamed = _unnamed(data_dir, rows)
    if problems or unnamed:
        # Look again, since rows and files may have changed during the check.
        now = _rows(database)
        named, wrong = _named_by(now)
        still = {(each.what.value, each.id) for each in named}
        others = [*_problems_of_aliases(now), *wrong]
        problems = [each for each in problems if (each.what, each.id) in still or each in others]
        unnamed = [path for path in unnamed if path in _unnamed(data_dir, now)]
    return Report(checker.checked | {"alias": len(_aliases(rows))}, problems, unnamed)


class _Checker:
    """Looks at files. `checked` counts them by kind."""

    def __init__(self, data_dir: Path, rows: Sequence[Row], is_quick: bool) -> None:
        self._data_dir = data_dir
        self._datasets = {row["id"]: row for table, row in rows if table == "datasets"}
        self._is_quick = is_quick
        self.checked: dict[str, int] = {what.value: 0 for what in What}

    def look(self, named: Named) -> Iterator[Problem]:
        """Yield what is wrong with the files that a row names."""
        self.checked[named.what.value] += 1
        look: Callable[[Named], Iterator[str]] = {
            What.VERSION: self._version,
            What.DATASET: self._dataset,
            What.UPLOAD: self._upload,
            What.REPORT: self._report,
            What.JOB: self._job,
        }[named.what]
        try:
            for problem in look(named):
                yield Problem(named.what.value, named.id, problem)
        except FilesOutside as error:
            yield Problem(named.what.value, named.id, error.message)

    def _version(self, named: Named) -> Iterator[str]:
        folder = data_path(self._data_dir, named.paths[0])
        if not folder.is_dir():
            yield (
                f"The folder {folder} is missing. Restore it from a backup, or delete the version by "
                f"DELETE /models/{named.id}."
            )
            return
        try:
            if self._is_quick:
                _check_sizes(folder)
            else:
                verify(folder, named.id)
        except VersionError as error:
            yield f"{error} A backup may have the files too."

    def _dataset(self, named: Named) -> Iterator[str]:
        folder, row = data_path(self._data_dir, named.paths[0]), self._datasets[named.id]
        again = "Restore it from a backup, or upload the data set again, and delete this one."
        try:
            content = set_content(folder)
        except FileNotFoundError:
            yield f"The folder {folder} is missing or has no files. {again}"
            return
        if content.is_folder:
            wrong = first_wrong_file(folder, is_quick=self._is_quick)
            if wrong is not None:
                yield f"{wrong} is missing, or is not what it was when the data set was checked. {again}"
            return
        hashes = row["source"].get("sha256") or []
        if len(hashes) != len(content.paths):
            yield f"{folder} has {len(content.paths)} shards, but {len(hashes)} were uploaded. {again}"
        elif not self._is_quick:
            for shard, expected in zip(content.paths, hashes, strict=True):
                if hash_of(shard) != expected:
                    yield f"{shard} is not the shard that was uploaded. {again}"

    def _upload(self, named: Named) -> Iterator[str]:
        if not any(data_path(self._data_dir, path).is_dir() for path in named.paths):
            yield (
                f"The folder {self._data_dir / named.paths[0]} is missing, so the data set cannot be checked. "
                "Upload it again."
            )

    def _report(self, named: Named) -> Iterator[str]:
        file = data_path(self._data_dir, named.paths[0])
        if not file.is_file():
            yield (
                f"The file {file} is missing. Restore it from a backup, or submit the evaluation again. If you do not "
                f"need it, remove the job's files: sds-clip jobs delete {named.id}"
            )

    def _job(self, named: Named) -> Iterator[str]:
        for _, checkpoint in checkpoint_folders(data_path(self._data_dir, named.paths[0])):
            if self._is_quick:
                is_whole = all((checkpoint / name).is_file() for name in (TENSORS_FILE, DESCRIPTION_FILE))
            else:
                is_whole = read_whole(checkpoint) is not None
            # A worker replaces old checkpoints while the job runs.
            if not is_whole and checkpoint.exists():
                yield (
                    f"The checkpoint {checkpoint} is damaged, so the job continues from an older one, or from the "
                    "start. Restore it from a backup, or remove it."
                )


def _rows(database: Database) -> list[Row]:
    with (
        tempfile.TemporaryDirectory(prefix="sds-clip-check-") as scratch,
        snapshot(database, Path(scratch)) as (_, connection),
    ):
        return list(read_rows(connection, only=TABLES))


def _named_by(rows: Sequence[Row]) -> tuple[list[Named], list[Problem]]:
    """What the rows name, and what is wrong with those that name paths elsewhere."""
    named: list[Named] = []
    wrong = []
    for row in rows:
        try:
            named += named_by([row])
        except WrongPath as error:
            wrong.append(Problem(error.what, error.id, error.problem))
    return named, wrong


def _check_sizes(folder: Path) -> None:
    """Raise VersionError if files are missing or have another size than when they were published."""
    for name, expected in read_manifest(folder).files.items():
        file = folder / name
        if not file.is_file() or file.stat().st_size != expected.size:
            raise VersionError(
                f"{file} is missing or has another size than in {MANIFEST_FILE}. Publish it again."
            )


def _aliases(rows: Sequence[Row]) -> list[dict[str, Any]]:
    # Tables of former releases have no column for the removal.
    return [row for table, row in rows if table == "aliases" and row.get("removed_at") is None]


def _problems_of_aliases(rows: Sequence[Row]) -> list[Problem]:
    versions = {row["id"]: row for table, row in rows if table == "versions"}
    found = []
    for alias in _aliases(rows):
        version: dict[str, Any] | None = versions.get(alias["version"])
        if version is None or version["status"] != VersionStatus.READY:
            found.append(
                Problem(
                    "alias",
                    alias["name"],
                    f"It points to the version {alias['version']}, which is not there. Point it to another one: "
                    f"sds-clip models promote VERSION --alias {alias['name']}",
                )
            )
    return found


def _unnamed(data_dir: Path, rows: Sequence[Row]) -> list[str]:
    """Folders of no record. Those that begin with a dot are temporary, and are removed by the workers."""
    known = {folder for each in _named_by(rows)[0] for folder in each.folders}
    ids = {(table, row["id"]) for table, row in rows if "id" in row}
    found = []
    for parent in FOLDERS:
        if (data_dir / parent).is_dir():
            for entry in sorted((data_dir / parent).iterdir()):
                path, record = f"{parent}/{entry.name}", (parent.split("/")[0], entry.name)
                if path not in known and record not in ids and not entry.name.startswith("."):
                    found.append(path)
    return found
