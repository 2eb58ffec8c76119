"""Jobs on several devices: two processes train as one, are interrupted as one, and end with the same weights."""

from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from sds_clip.app.errors import InvalidConfiguration
from sds_clip.app.schemas.finetune import FinetuneSpec
from sds_clip.app.store.states import JobStatus
from sds_clip.worker.config import WorkerConfig
from tests.worker.waiting import end, followers
from tests.worker.work import Asked, Work, result_of

STEPS = 24
BOTH = "cpu,cpu"


@pytest.fixture
def asked(tuning: Asked, teacher_folder: Path) -> Asked:
    sds = {"teacher": str(teacher_folder), "objective": "sds-clip", "batch_size": 4, "sds_batch_size": 2}
    return tuning | sds | {"steps": STEPS, "save_every": 4}


@pytest.mark.long
def test_job_on_two_devices_that_is_killed_and_stopped_ends_as_one_that_is_not(
    work: Work, asked: Asked
) -> None:
    """Its own process is killed, then its other one; then the worker stops, and all of them do."""
    whole, job = (work.submit(asked | {"devices": 2}, devices=2) for _ in range(2))
    with work.slot(device=BOTH):
        work.until(whole, JobStatus.SUCCEEDED)
        work.until_trained(job, 5, fence=1)
        (orphan,) = followers(work.config)
        end(work.process())
        orphan.wait(60)
        work.until_trained(job, 9, fence=2)
        followers(work.config, fence=2)[0].kill()
        work.until_trained(job, 13, fence=3)
        (other,) = followers(work.config, fence=3)
    other.wait(60)
    left = work.get(job)
    assert (left.status, left.interruptions) == (JobStatus.QUEUED, 1)
    with work.slot(device=BOTH):
        work.until(job, JobStatus.SUCCEEDED)
    assert work.get(job).result_version == work.get(whole).result_version
    first, second, third = work.resumed(job)
    assert 4 <= first <= second <= third
    assert second >= 8
    assert result_of(work.get(job))["steps"] == STEPS


def test_slot_with_one_device_leaves_a_job_that_needs_two_to_another(work: Work, asked: Asked) -> None:
    both, one = work.submit(asked | {"steps": 2, "devices": 2}, devices=2), work.submit(asked | {"steps": 2})
    with work.slot():
        work.until(one, JobStatus.SUCCEEDED)
    assert work.get(both).status is JobStatus.QUEUED
    with work.slot(device=BOTH):
        work.until(both, JobStatus.SUCCEEDED)


def test_batch_that_devices_cannot_share_is_refused(asked: Asked) -> None:
    options = {"steps": 2, "batch_size": 4, "sds_batch_size": 3}
    sent = {
        "training_data": asked["training_data"],
        "teacher": "demo",
        "hyperparameters": options,
        "devices": 2,
    }
    with pytest.raises(
        InvalidConfiguration, match=r"sds_batch_size 3 cannot be split evenly over 2 processes"
    ):
        FinetuneSpec.model_validate(sent)


@pytest.mark.parametrize(
    ("given", "read"),
    [("auto", ("auto",)), ("cuda:0, cuda:1", ("cuda:0", "cuda:1")), ("cpu,cpu", ("cpu", "cpu"))],
)
def test_devices_of_a_slot_are_read(given: str, read: tuple[str, ...]) -> None:
    assert config(given).devices == read


@pytest.mark.parametrize("given", ["cuda:0,cuda:0", "cuda,cuda:1", "cpu,cuda:0", "auto,auto"])
def test_devices_that_processes_cannot_share_are_refused(given: str) -> None:
    with pytest.raises(ValueError, match="Several devices must be different GPUs"):
        config(given)


def config(device: str) -> WorkerConfig:
    given = {"broker_url": "redis://127.0.0.1", "database_url": "sqlite:///x", "worker_device": device}
    return WorkerConfig.read("finetune", {}, **given)


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    yield
    assert not [
        each
        for each in psutil.Process().children(recursive=True)
        if "sds_clip.worker.followers" in each.cmdline()
    ]
