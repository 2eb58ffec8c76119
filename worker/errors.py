"""What an exception means for a job: the reason that its row gets, and whether another attempt may help."""

import errno
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from app.errors import DiskReserve, ServiceError, without_folder
from app.store.records import JobError
from models.errors import ModelError

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_STORAGE = frozenset({errno.EIO, errno.EROFS, errno.ESTALE, errno.EMFILE})
_IN_WORDS = re.compile(r"\(os error (\d+)\)")
_ALLOCATION = ("can't allocate memory", "out of memory", "CUBLAS_STATUS_ALLOC_FAILED")


class Stopped(Exception):
    """The job was asked to stop, and has come to where it can."""


class JobFailed(Exception):
    """The job cannot succeed, for a reason of its own; trying again gives the same."""

    def __init__(self, code: str, message: str, *, param: str | None = None) -> None:
        super().__init__(message)
        self.error = JobError(code, message, param)


@dataclass(frozen=True)
class Failure:
    """An attempt's end.

    `again`: the cause may have gone by the next one. `pauses`: there is none until a person has made room.
    """

    error: JobError
    again: bool
    pauses: bool = False


def failure_of(error: BaseException, *, hidden: Path | None = None) -> Failure:
    """Read an exception. `hidden` is a folder whose path stays out of the message.

    What is wrong with the request, its data or its model fails the job; a full disk pauses it; a disk or a database
    that is away lets it be tried again, and so does what nobody has foreseen. Out of memory is not retried.
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
            "The device has not enough memory for the job. Take smaller batches (micro_batch_size, sds_batch_size), "
            "activation_checkpointing, or a lower precision."
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
        return Failure(JobError(error.code, str(error)), again=False)
    if isinstance(error, DiskReserve):
        return _paused(error.code, error.message)
    if isinstance(error, ServiceError):
        found = JobError(error.code, error.message, error.param, error.retryable)
        return Failure(found, again=error.retryable)
    message = f"Something is broken here; the worker's log has it ({type(error).__name__})."
    return Failure(JobError("internal_error", message, retryable=True), again=True)


def _paused(code: str, text: str) -> Failure:
    message = f"{text} The job is paused and keeps its last whole checkpoint; make room, then resume it."
    return Failure(JobError(code, message, retryable=True), again=False, pauses=True)


def _errno(error: BaseException) -> int:
    """The system's number for an error, which safetensors tells in words; 0 for none."""
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
