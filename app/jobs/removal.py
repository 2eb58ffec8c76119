"""Removes the files of a job that has ended, so that a retry at the same time never finds a part of them."""

import contextlib
from pathlib import Path

from sds_clip.app.inside import inside
from sds_clip.app.removal import moved_aside
from sds_clip.app.store import Workspace
from sds_clip.app.store.records import Job


def remove_job_files(store: Workspace, jobs_dir: Path, job_id: str, *, ended_for_s: float = 0.0) -> Job:
    """Remove a job's folder and record that in its row, which stays. Repeating it is not an error.

    The folder is moved aside while no worker can take up the job, and is removed after that transaction has
    ended.

    Raises: UnknownRecord; JobStateConflict if the job has not ended, or did so less than `ended_for_s` ago;
    FilesOutside; StoreUnavailable; OSError if the folder cannot be moved, which leaves it in place.
    """
    with (
        moved_aside(inside(jobs_dir, jobs_dir / job_id)) as move,
        store.jobs.withheld(job_id, ended_for_s=ended_for_s) as job,
        contextlib.suppress(FileNotFoundError),
    ):
        move()
    return job
