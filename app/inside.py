"""Keeps paths that are made from rows inside the folders of this program, whoever wrote the rows."""

import os
from pathlib import Path

from sds_clip.app.errors import FilesOutside


def inside(folder: Path, path: Path) -> Path:
    """The path, which must lie below the folder. Only the folder itself may be a link, such as to another disk.

    Raises: FilesOutside.
    """
    if folder.resolve() not in path.resolve().parents:
        if Path(os.path.abspath(folder)) in Path(os.path.abspath(path)).parents:
            raise FilesOutside(
                "The files of the record are behind a link that leads out of the folder for its kind, so they are "
                "neither read nor removed. Move them back to where the link is, or let the whole data folder be a "
                "link or a mount."
            )
        raise FilesOutside(
            "The record in the database names files outside the folder for its kind, so they are neither read nor "
            "removed. Correct the record, or restore a backup that can be trusted."
        )
    return path


def version_folder(data_dir: Path, folder: str) -> Path:
    """A version's folder, which its row names. Raises: FilesOutside."""
    return inside(data_dir / "versions", data_dir / folder)


def job_file(jobs_dir: Path, job_id: str, path: Path) -> Path:
    """A file of a job, whose result names it. Raises: FilesOutside."""
    return inside(inside(jobs_dir, jobs_dir / job_id), path)
