"""Removing the files of a job that has ended, so that nobody who takes it up meanwhile finds a part of them."""

import contextlib
from pathlib import Path

from app.removal import moved_aside
from app.store import Store
from app.store.records import Job


def remove_job_files(store: Store, jobs_dir: Path, job_id: str, *, ended_for_s: float = 0.0) -> Job:
    """Remove the folder of a job and say so in its row, which stays. Again is no error.

    The folder is moved aside while nobody can take up the job, and is removed once that has held to the end.

    Raises: UnknownRecord, JobStateConflict where the job has not ended, or not for so long; StoreUnavailable,
    OSError where the folder cannot be moved; then it is where it was.
    """
    with (
        moved_aside(jobs_dir / job_id) as move,
        store.jobs.withheld(job_id, ended_for_s=ended_for_s) as job,
        contextlib.suppress(FileNotFoundError),
    ):
        move()
    return job
