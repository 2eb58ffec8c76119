"""Removing the files of a job that has ended, so that nobody who takes it up meanwhile finds a part of them."""

import contextlib
import os
import secrets
import shutil
from pathlib import Path

from app.store import Store
from app.store.errors import StoreUnavailable
from app.store.records import Job

REMOVING = ".removing."


def remove_job_files(store: Store, jobs_dir: Path, job_id: str, *, ended_for_s: float = 0.0) -> Job:
    """Remove the folder of a job and say so in its row, which stays. Again is no error.

    The folder is moved aside while nobody can take up the job, and is removed once that has held to the end.

    Raises: UnknownRecord, JobStateConflict where the job has not ended, or not for so long; StoreUnavailable,
    OSError where the folder cannot be moved; then it is where it was.
    """
    folder, aside = jobs_dir / job_id, jobs_dir / f"{REMOVING}{job_id}.{secrets.token_hex(4)}"
    try:
        with (
            store.jobs.withheld(job_id, ended_for_s=ended_for_s) as job,
            contextlib.suppress(FileNotFoundError),
        ):
            os.rename(folder, aside)
    except StoreUnavailable:
        with contextlib.suppress(OSError):
            os.rename(aside, folder)
        raise
    shutil.rmtree(aside, ignore_errors=True)  # what stays of it is cleared away with what crashes leave
    return job
