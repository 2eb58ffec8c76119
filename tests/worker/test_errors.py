"""What exceptions mean for a job."""

import errno
from pathlib import Path

import pytest
import torch

from app.errors import InvalidRequest
from app.store.errors import StoreUnavailable
from models.data.errors import DataError
from models.references import CheckpointError
from models.training.errors import NotFiniteError
from worker.errors import JobFailed, failure_of


@pytest.mark.parametrize(
    ("error", "code", "again"),
    [
        (DataError("x"), "bad_data", False),
        (NotFiniteError("x"), "training_failed", False),
        (JobFailed("nothing_learned", "x"), "nothing_learned", False),
        (InvalidRequest("x", code="unusable_record"), "unusable_record", False),
        (StoreUnavailable(), "store_unavailable", True),
        (OSError(errno.ENOSPC, "No space left on device"), "storage_failed", True),
        (MemoryError(), "out_of_memory", False),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB"), "out_of_memory", False),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried ..."), "out_of_memory", False),
        (RuntimeError("a shape is wrong"), "internal_error", True),
    ],
)
def test_reason_and_whether_to_try_again(error: Exception, code: str, again: bool) -> None:
    failure = failure_of(error)
    assert (failure.error.code, failure.again) == (code, again)


def test_memory_that_torch_really_cannot_have_is_known_as_such() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**62, dtype=torch.uint8)
    assert failure_of(caught.value).error.code == "out_of_memory"


def test_full_disk_is_found_behind_the_error_that_tells_of_it_and_paths_stay_here() -> None:
    error = CheckpointError("/data/jobs/j/1/run cannot be written (No space left on device).")
    error.__cause__ = OSError(errno.ENOSPC, "No space left on device")
    failure = failure_of(error, hidden=Path("/data"))
    assert (failure.error.code, failure.again) == ("storage_failed", True)
    assert failure.error.message == "jobs/j/1/run cannot be written (No space left on device)."
