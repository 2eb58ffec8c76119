"""A job on two devices, sent over HTTP to a service beside a broker and a worker as they are run."""

from collections.abc import Callable
from pathlib import Path

import pytest

from sds_clip.app.store.states import JobKind, JobStatus
from sds_clip.worker.valkey import Valkey
from tests.app.jobs.by_http import is_ready, pairs, submit, upload, worker_beside
from tests.app.jobs.conftest import Keyed
from tests.worker.waiting import WorkerProcess, end, followers, job_process, until, until_status


@pytest.mark.long
def test_job_that_is_killed_twice_makes_the_version_of_one_that_is_not(
    make_keyed: Callable[..., Keyed], broker: Valkey, tiny_folder: Path
) -> None:
    base = f"local-dir:{tiny_folder}"
    keyed = make_keyed(broker_url=broker.url, allowed_models=[base])
    store = keyed.service.store
    config = worker_beside(keyed.service.settings, device="cpu,cpu", min_save_interval_s=0.0)

    def status(job: str) -> dict[str, object]:
        shown: dict[str, object] = keyed.ask("alice", "GET", f"/jobs/{job}").json()
        return shown

    def is_beyond(job: str, step: int, fence: int) -> bool:
        held = store.jobs.get(job)
        assert held.status is not JobStatus.FAILED, held
        return held.fence == fence and held.furthest_step > step

    with WorkerProcess(config, "tests.worker.real_worker"):
        until(lambda: store.workers.living_queues().get(JobKind.FINETUNE) == 2)
        data = upload(keyed, "alice", pairs(8))
        until(lambda: is_ready(store, data))
        options = {"steps": 300, "save_every": 5}
        whole, killed = (submit(keyed, "alice", base, data, devices=2, **options) for _ in range(2))
        until_status(store, whole, JobStatus.SUCCEEDED)
        until(lambda: is_beyond(killed, 20, 1))
        end(job_process(config))
        until(lambda: is_beyond(killed, 60, 2))
        (other,) = followers(config, 2)
        other.kill()
        until_status(store, killed, JobStatus.SUCCEEDED)

    assert store.jobs.get(killed).fence == 3
    assert status(killed)["devices"] == 2
    versions = [status(job)["result_version"] for job in (whole, killed)]
    assert versions[0] == versions[1] is not None
