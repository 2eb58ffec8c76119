"""Which files the rows of the database name, by paths relative to the data folder."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from sds_clip.app.inside import inside
from sds_clip.app.schemas.jobs import FILES
from sds_clip.app.store.records import SOURCE_PATH, DatasetStatus, VersionStatus
from sds_clip.app.store.states import TERMINAL, JobStatus
from sds_clip.app.store.transfer import Row

TABLES = ("jobs", "datasets", "versions", "aliases")
"""The tables whose rows name files or versions."""
FOLDERS = ("versions", "datasets/sets", "datasets/uploads", "jobs")
"""The folders that hold the files, each in a folder named by its id."""

_ID = r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}"
_FOLDER = re.compile(rf"(?:{'|'.join(FOLDERS)})/{_ID}(?=/|\Z)")
_PART = re.compile(r"(?!\.{1,2}$)[^/\0]+")


class WrongPath(ValueError):
    """A row names a path outside the folders of versions, data sets and jobs, or its id cannot name a folder."""

    def __init__(self, what: str, id: str, problem: str) -> None:
        super().__init__(f"The row of the {what} {id!r} {problem}")
        self.what = what
        self.id = id
        self.problem = f"Its row {problem} Correct the row in the database."


class What(StrEnum):
    """What the files are."""

    VERSION = "version"
    DATASET = "data set"
    UPLOAD = "upload"
    REPORT = "report"
    JOB = "job"
    """The checkpoints, logs and scores of a job that may still continue. It may have none of them."""


_KINDS = {"jobs": What.JOB, "datasets": What.DATASET, "versions": What.VERSION}


@dataclass(frozen=True)
class Named:
    """Files that a row names: a folder, or the single file of a report."""

    what: What
    id: str
    paths: tuple[str, ...]
    """Where they may be. They are there if one of these is."""
    is_open: bool = False
    """For a job, whether it has not ended."""

    @property
    def folders(self) -> set[str]:
        """The folders of all files of this version, data set or job."""
        return {found[0] for found in map(_FOLDER.match, self.paths) if found is not None}


def named_by(rows: Iterable[Row]) -> Iterator[Named]:
    """Yield what the rows name. Raises WrongPath."""
    for table, row in rows:
        _check_row(table, row)
        yield from _named(table, row)


def data_path(data_dir: Path, path: str) -> Path:
    """Where the files of a path are that `named_by` has checked. Raises FilesOutside if a link leads elsewhere."""
    folder = next(each for each in FOLDERS if path.startswith(f"{each}/"))
    return inside(data_dir / folder, data_dir / path)


def _check_row(table: str, row: dict[str, Any]) -> None:
    """Check what routes and workers make paths of, also where the files were removed. Raises WrongPath."""
    if table == "aliases":
        return
    what = _KINDS[table].value
    if re.fullmatch(_ID, row["id"]) is None:
        raise WrongPath(what, row["id"], "has an id that cannot name a folder.")
    if table == "versions" and row["folder"] is not None:
        _check(what, row["id"], row["folder"], "versions")
    if table == "jobs":
        for path in ((row["result"] or {}).get(FILES) or {}).values():
            _check(what, row["id"], path, f"jobs/{row['id']}")


def _check(what: str, id: str, path: str, below: str) -> None:
    found = _FOLDER.match(path)
    rest = path[found.end() :] if found else ""
    is_below = path.startswith(f"{below}/")
    if found is None or not is_below or not all(_PART.fullmatch(part) for part in rest.split("/")[1:]):
        raise WrongPath(what, id, f"names the path {path!r}, where none of its files are.")


def _named(table: str, row: dict[str, Any]) -> Iterator[Named]:
    if table == "versions" and row["status"] == VersionStatus.READY and row["folder"] is not None:
        yield Named(What.VERSION, row["id"], (row["folder"],))
    elif table == "datasets" and SOURCE_PATH not in row["source"]:
        checked = f"datasets/sets/{row['id']}"
        if row["status"] == DatasetStatus.READY:
            yield Named(What.DATASET, row["id"], (checked,))
        elif row["status"] == DatasetStatus.VALIDATING:
            # A check renames an upload to the data set before it records its result.
            yield Named(What.UPLOAD, row["id"], (f"datasets/uploads/{row['id']}", checked))
    # Tables of the first release have no column for the removal of files.
    elif table == "jobs" and row.get("files_removed_at") is None:
        for path in ((row["result"] or {}).get(FILES) or {}).values():
            yield Named(What.REPORT, row["id"], (path,))
        if row["status"] != JobStatus.SUCCEEDED:
            yield Named(What.JOB, row["id"], (f"jobs/{row['id']}",), row["status"] not in TERMINAL)
