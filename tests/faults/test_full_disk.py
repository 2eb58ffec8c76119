"""A whole system on one disk that is really full: services, workers, broker, SQLite and logs."""

import io
import time
from pathlib import Path
from random import Random

import httpx
import pytest

from bench.faults.checks import Findings, check
from bench.faults.injections import begun
from bench.faults.system import make_inputs, running_system
from sds_clip.app.store.states import JobStatus
from tests.disks import small_disk

pytestmark = [pytest.mark.long, pytest.mark.slow]

FULL_S = 10.0


def code_of(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, str(answer.json()["error"]["code"])


def test_full_disk_of_the_whole_system_loses_nothing_and_refuses_no_picture(tmp_path: Path) -> None:
    """There is no reserve, so that not even the database can be written."""
    inputs = make_inputs(tmp_path)
    with (
        small_disk(tmp_path / "disk", "256m") as disk,
        running_system(disk.path / "system", inputs, keep_warm=False, disk_reserve_bytes=0) as system,
    ):
        job, began = begun(system, Random(5)), time.time()
        datasets = system.data_dir / "datasets"
        uploads = sorted(datasets.rglob("*"))
        disk.fill()
        full_at = time.monotonic()
        with pytest.raises(httpx.HTTPStatusError) as refused:
            system.submit(6)
        assert code_of(refused.value.response) == (503, "store_unavailable")
        files = {"file": ("large.tar", io.BytesIO(bytes(2**20)))}
        answer = system.client.post("/datasets", data={"name": "large", "format": "pairs"}, files=files)
        assert code_of(answer) == (507, "storage_full")
        assert sorted(datasets.rglob("*")) == uploads
        time.sleep(max(0.0, FULL_S - (time.monotonic() - full_at)))
        assert system.job(job).finished_at is None, "the job ended before its disk was full"
        disk.free()

        system.until(lambda: system.job(job).status in (JobStatus.PAUSED, JobStatus.SUCCEEDED), "its end")
        if system.job(job).status is JobStatus.PAUSED:  # recorded in the last block that was free
            system.client.post(f"/jobs/{job}/resume").raise_for_status()
        else:
            assert system.job(job).interruptions > 0
        system.until_recovered(job)
        system.until_recovered(system.submit(6))
        assert check(system) == Findings()
        assert [each for caller in system.callers for each in caller.refused_since(began)] == []
