"""What exceptions mean for a job."""

import errno
import resource
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from sds_clip.app.errors import DiskReserve, InternalError, InvalidRequest, StorageFull, StoreUnavailable
from sds_clip.models.atomic import atomic_folder
from sds_clip.models.clip.precision import DeviceError
from sds_clip.models.errors import CheckpointError, DataError, NotFiniteError
from sds_clip.worker.errors import JobFailed, failure_of


@pytest.mark.parametrize(
    ("error", "code", "again"),
    [
        (DataError("x"), "bad_data", False),
        (DeviceError("x"), "bad_device", True),
        (NotFiniteError("x"), "training_failed", False),
        (JobFailed("nothing_learned", "x"), "nothing_learned", False),
        (InvalidRequest("x", code="unusable_record"), "unusable_record", False),
        (StoreUnavailable(), "store_unavailable", True),
        (OSError(errno.EIO, "Input/output error"), "storage_failed", True),
        (MemoryError(), "out_of_memory", False),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB"), "out_of_memory", False),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried ..."), "out_of_memory", False),
        (RuntimeError("a shape is wrong"), "internal_error", True),
    ],
)
def test_reason_and_whether_to_try_again(error: Exception, code: str, again: bool) -> None:
    failure = failure_of(error)
    assert (failure.error.code, failure.again) == (code, again)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "storage_full"),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), "storage_full"),
        (DiskReserve("x"), "disk_reserve"),
    ],
)
def test_full_disk_pauses_the_job_until_a_person_has_made_room(error: Exception, code: str) -> None:
    failure = failure_of(error)
    assert (failure.error.code, failure.error.retryable, failure.again, failure.pauses) == (
        code,
        True,
        False,
        True,
    )


def test_one_code_says_the_same_of_retrying_in_a_job_and_in_an_answer() -> None:
    """A job's error and an answer's, where a cause may come to both."""
    found = {
        failure_of(error).error.code: failure_of(error).error.retryable
        for error in (
            OSError(errno.ENOSPC, "No space left on device"),
            RuntimeError("a shape is wrong"),
            StoreUnavailable(),
        )
    }
    said = {error.code: error.retryable for error in (StorageFull, InternalError, StoreUnavailable)}
    assert found == said


def test_memory_that_torch_really_cannot_have_is_known_as_such() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**62, dtype=torch.uint8)
    assert failure_of(caught.value).error.code == "out_of_memory"


def test_full_disk_is_found_behind_the_error_that_tells_of_it_and_paths_stay_here() -> None:
    error = CheckpointError("/data/jobs/j/1/run cannot be written (No space left on device).")
    error.__cause__ = OSError(errno.ENOSPC, "No space left on device")
    failure = failure_of(error, hidden=Path("/data"))
    assert (failure.error.code, failure.again, failure.pauses) == ("storage_full", False, True)
    assert failure.error.message.startswith("jobs/j/1/run cannot be written (No space left on device). ")


def test_full_disk_that_safetensors_tells_of_in_words_is_found(tmp_path: Path) -> None:
    """The disk is full for this process at 64 KiB, and the folder is a checkpoint's."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**16, limits[1]))
    try:
        with pytest.raises(CheckpointError) as caught, atomic_folder(tmp_path / "step-1") as folder:
            save_file({"a": torch.zeros(2**16)}, folder / "state.safetensors")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    failure = failure_of(caught.value)
    assert (failure.error.code, failure.pauses) == ("storage_full", True)
