"""The metrics that a service with a database exports."""

import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from sds_clip.app import store_gauges
from sds_clip.app.keys import create_key
from sds_clip.app.store.overview import Overview, Overviews
from sds_clip.app.store.states import JobKind
from tests.app.jobs.conftest import Service, error_of


def exported(service: Service) -> list[str]:
    return [line for line in service.client.get("/metrics").text.splitlines() if line[0] != "#"]


@pytest.fixture(autouse=True)
def always_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_gauges, "FRESH_S", 0.0)
    monkeypatch.setattr(store_gauges, "WAIT_S", 600.0)


def test_what_the_database_has_is_exported(make_service: Callable[..., Service]) -> None:
    service = make_service(disk_reserve_bytes=4096)
    service.finetune()
    found = exported(service)
    assert {
        "sds_clip_store_up 1.0",
        'sds_clip_jobs{kind="finetune",status="queued"} 1.0',
        'sds_clip_jobs{kind="evaluate",status="queued"} 0.0',
        'sds_clip_workers{alive="true",kind="finetune"} 0.0',
        'sds_clip_datasets{status="ready"} 1.0',
        "sds_clip_disk_reserve_bytes 4096.0",
    } <= set(found)
    ages = [line for line in found if line.startswith("sds_clip_queue_age_seconds")]
    assert len(ages) == len(JobKind)
    service.claim()
    assert any(
        line.startswith('sds_clip_lease_left_seconds{kind="finetune"} 5') for line in exported(service)
    )


def test_values_are_read_again_only_after_a_while(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_gauges, "FRESH_S", 3600.0)
    before = exported(service)
    service.finetune()
    counted = 'sds_clip_jobs{kind="finetune",status="queued"} 0.0'
    assert counted in before
    assert counted in exported(service)


def test_database_that_hangs_holds_up_no_scrape_and_is_asked_once(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The thread of the reading hangs, as in a driver that waits for a dead server."""
    going_on, asked = threading.Event(), []

    def hang(overviews: Overviews) -> Overview:
        asked.append(time.monotonic())
        assert going_on.wait(600)
        return read(overviews)

    read = Overviews.read
    monkeypatch.setattr(Overviews, "read", hang)
    monkeypatch.setattr(store_gauges, "WAIT_S", 0.05)
    for _ in range(2):
        found = exported(service)
        assert "sds_clip_store_up 0.0" in found
        assert not [line for line in found if line.startswith("sds_clip_jobs")]
        assert [line for line in found if line.startswith("sds_clip_disk_free_bytes")]
    assert len(asked) == 1
    going_on.set()
    monkeypatch.setattr(store_gauges, "WAIT_S", 600.0)
    assert "sds_clip_store_up 1.0" in exported(service)


def test_while_a_reading_takes_long_the_last_values_stay_for_a_while(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "sds_clip_store_up 1.0" in exported(service)
    going_on, read = threading.Event(), Overviews.read
    monkeypatch.setattr(Overviews, "read", lambda overviews: going_on.wait(600) and read(overviews))
    monkeypatch.setattr(store_gauges, "WAIT_S", 0.05)
    assert {"sds_clip_store_up 1.0", 'sds_clip_datasets{status="ready"} 0.0'} <= set(exported(service))
    monkeypatch.setattr(store_gauges, "KEEP_S", 0.0)
    assert "sds_clip_store_up 0.0" in exported(service)
    going_on.set()


@pytest.mark.parametrize(
    ("limits", "limit"),
    [
        ({"max_open_jobs": 1, "max_open_jobs_per_key": 2}, "too_many_jobs"),
        ({"max_open_jobs_per_key": 1}, "max_open_jobs_per_key"),
    ],
)
def test_refusals_are_counted_by_limit_and_only_the_log_names_the_key(
    make_service: Callable[..., Service],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    limits: dict[str, int],
    limit: str,
) -> None:
    caplog.set_level("INFO", "app.access")
    keys = tmp_path / "keys.json"
    phone = {"Authorization": f"Bearer {create_key(keys, 'phone', ['train'])}"}
    service = make_service(keys_file=keys, **limits)
    request = service.request(owner="phone")
    assert service.client.post("/finetune", json=request, headers=phone).status_code == 202
    assert error_of(service.client.post("/finetune", json=request, headers=phone), 429)
    assert f'sds_clip_throttled_total{{limit="{limit}"}} 1.0' in exported(service)
    assert "phone" not in exported(service)
    logged = [vars(record)["fields"] for record in caplog.records if record.name == "app.access"]
    assert [fields["key"] for fields in logged if fields["status"] == 429] == ["phone"]


def test_refusals_without_keys_are_counted_too(make_service: Callable[..., Service]) -> None:
    service = make_service(max_open_jobs=1)
    request = service.request()
    service.client.post("/finetune", json=request)
    service.client.post("/finetune", json=request)
    assert 'sds_clip_throttled_total{limit="too_many_jobs"} 1.0' in exported(service)
