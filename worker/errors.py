"""Maps an exception to a job's failure: the error in its row, and whether another attempt may help.

JOB_FAILURES in app/errors.py lists the codes that only jobs have.
"""

import errno
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from sds_clip.app.errors import DiskReserve, ServiceError, without_folder
from sds_clip.app.store.records import JobError
from sds_clip.models.errors import ModelError

# A full disk pauses the job until someone makes room (docs/decisions/0021); other faults are retried.
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_STORAGE = frozenset({errno.EIO, errno.EROFS, errno.ESTALE, errno.EMFILE})
_IN_WORDS = re.compile(r"\(os error (\d+)\)")
_ALLOCATION = ("can't allocate memory", "out of memory", "CUBLAS_STATUS_ALLOC_FAILED")


class Stopped(Exception):
    """The job stops at a point where it can. The message says why: it was asked to, or its data folder went away."""


class JobFailed(Exception):
    """The job cannot succeed, for a reason of its own; a retry would end the same way."""

    def __init__(self, code: str, message: str, *, param: str | None = None) -> None:
        super().__init__(message)
        self.error = JobError(code, message, param)


@dataclass(frozen=True)
class Failure:
    """How an attempt ended.

    `again`: another attempt may succeed. `pauses`: the job waits until someone has freed disk space and resumes it.
    """

    error: JobError
    again: bool
    pauses: bool = False


def failure_of(error: BaseException, *, hidden: Path | None = None) -> Failure:
    """Classify an exception. The path of the folder `hidden` is removed from the message.

    Errors in the request, its data or its model fail the job. A full disk pauses it. Other disk errors, an
    absent database and unexpected errors are retried. Out of memory is not retried, since it would happen again.
    """
    failure = _failure(error)
    if hidden is None:
        return failure
    message = without_folder(failure.error.message, hidden)
    return replace(failure, error=replace(failure.error, message=message))


def _failure(error: BaseException) -> Failure:
    if isinstance(error, JobFailed):
        return Failure(error.error, again=False)
    chain = list(_chain(error))
    if any(_is_out_of_memory(cause) for cause in chain):
        message = (
            "The device does not have enough memory for the job. Training takes less with smaller batches "
            "(micro_batch_size, sds_batch_size), activation_checkpointing, or a lower precision."
        )
        return Failure(JobError("out_of_memory", message), again=False)
    for cause in chain:
        if (number := _errno(cause)) in _STORAGE | _FULL:
            text = (
                str(error)
                if isinstance(error, ModelError)
                else f"The disk cannot be used: {os.strerror(number)}."
            )
            if number in _FULL:
                return _paused("storage_full", text)
            return Failure(JobError("storage_failed", text, retryable=True), again=True)
    if isinstance(error, ModelError):
        # No request names a device: the worker's is gone, and another worker may have one.
        again = error.code == "bad_device"
        return Failure(JobError(error.code, str(error), retryable=again), again=again)
    if isinstance(error, DiskReserve):
        return _paused(error.code, error.message)
    if isinstance(error, ServiceError):
        found = JobError(error.code, error.message, error.param, error.retryable)
        return Failure(found, again=error.retryable)
    message = (
        f"An unexpected error stopped the job ({type(error).__name__}); the worker's log has the details."
    )
    return Failure(JobError("internal_error", message, retryable=True), again=True)


def _paused(code: str, text: str) -> Failure:
    message = (
        f"{text} The job is paused and keeps its last complete checkpoint. Free some disk space, "
        "then resume the job."
    )
    return Failure(JobError(code, message, retryable=True), again=False, pauses=True)


def _errno(error: BaseException) -> int:
    """The system's error number, or 0. safetensors only mentions it in the message."""
    if isinstance(error, OSError):
        return error.errno or 0
    found = _IN_WORDS.search(str(error)) if type(error).__name__ == "SafetensorError" else None
    return int(found[1]) if found else 0


def _is_out_of_memory(error: BaseException) -> bool:
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":  # torch's
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _ALLOCATION)


def _chain(error: BaseException) -> Iterator[BaseException]:
    current: BaseException | None = error
    while current is not None:
        yield current
        current = current.__cause__
