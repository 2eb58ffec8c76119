"""A disk that is full but for its reserve: nothing new is accepted, and what is there is served and steered as ever."""

import io
from collections.abc import Callable
from itertools import product
from pathlib import Path

import pytest

from sds_clip.app.store.records import JobError
from tests.app.datasets.archives import tar_of
from tests.app.jobs.conftest import Service, error_of

NO_DISK_IS_SO_LARGE = 2**62


@pytest.fixture
def full(make_service: Callable[..., Service]) -> Service:
    return make_service(disk_reserve_bytes=NO_DISK_IS_SO_LARGE)


def test_no_job_is_accepted(full: Service) -> None:
    data = full.ready_dataset("winoground")
    bodies = {
        "/finetune": full.request(),
        "/evaluate": {"model": "default", "benchmark": "winoground", "data": data},
    }

    for path, dry_run in product(bodies, (False, True)):
        answer = full.client.post(path, json=bodies[path] | {"dry_run": dry_run})
        assert error_of(answer, 507)["code"] == "disk_reserve"
        assert int(answer.headers["Retry-After"]) > 0
    assert full.client.get("/jobs").json()["data"] == []


def test_no_upload_is_accepted_and_nothing_of_it_is_left(full: Service) -> None:
    folder = full.settings.data_dir / "datasets"
    before = sorted(folder.rglob("*"))

    for field in ("file", "shards"):
        answer = full.client.post(
            "/datasets",
            data={"name": "large", "format": "pairs"},
            files={field: ("a.tar", io.BytesIO(tar_of({"a.txt": bytes(2**16)})))},
        )
        assert error_of(answer, 507)["code"] == "disk_reserve"
        assert int(answer.headers["Retry-After"]) > 0
    assert sorted(folder.rglob("*")) == before
    assert full.client.get("/datasets").json()["data"] == []


def test_data_that_lie_on_the_server_already_are_not_registered(full: Service, roots: Path) -> None:
    (roots / "pairs").mkdir()
    body = {"name": "there", "format": "pairs", "source": str(roots / "pairs")}

    assert error_of(full.client.post("/datasets", json=body), 507)["code"] == "disk_reserve"
    assert full.client.get("/datasets").json()["data"] == []


def test_replay_of_a_submission_from_before_is_answered(
    service: Service, make_service: Callable[..., Service], tmp_path: Path
) -> None:
    body, key = service.request(), {"Idempotency-Key": "k"}
    job = service.client.post("/finetune", json=body, headers=key).json()["id"]
    full = make_service(disk_reserve_bytes=NO_DISK_IS_SO_LARGE, state_dir=tmp_path / "another")

    assert full.client.post("/finetune", json=body, headers=key).json()["id"] == job


def test_retry_needs_room_and_a_job_that_can_be_retried(
    service: Service, make_service: Callable[..., Service], tmp_path: Path
) -> None:
    succeeded, cancelled = service.finetune()["id"], service.finetune()["id"]
    _, lease = service.claim()
    service.store.leases.succeed(lease)
    service.client.post(f"/jobs/{cancelled}/cancel")
    full = make_service(disk_reserve_bytes=NO_DISK_IS_SO_LARGE, state_dir=tmp_path / "state")

    assert error_of(full.client.post(f"/jobs/{succeeded}/retry"), 409)["code"] == "job_state"
    assert error_of(full.client.post(f"/jobs/{cancelled}/retry"), 507)["code"] == "disk_reserve"
    assert (
        "507" in full.client.get("/openapi.json").json()["paths"]["/jobs/{job_id}/retry"]["post"]["responses"]
    )


def test_job_that_its_worker_paused_says_why_until_it_is_resumed(service: Service) -> None:
    job_id, lease = service.begin()
    service.store.leases.suspend(lease, JobError("disk_reserve", "The disk is full.", retryable=True))

    job = service.client.get(f"/jobs/{job_id}").json()
    resumed = service.client.post(f"/jobs/{job_id}/resume").json()

    reason = {"code": "disk_reserve", "message": "The disk is full.", "param": None, "retryable": True}
    assert (job["status"], job["error"], job["pause_reason"]) == ("paused", None, reason)
    assert job["transitions"][-1]["message"] == reason["message"]
    assert (resumed["status"], resumed["pause_reason"]) == ("queued", None)
