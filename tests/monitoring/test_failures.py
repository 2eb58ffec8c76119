"""A real Prometheus sees each way for a job to fail, and raises the alert."""

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from sds_clip.app import store_gauges
from sds_clip.app.store import Store
from sds_clip.app.store_gauges import StoreGauges
from tests.app.serverside import free_ports
from tests.app.store.conftest import FakeClock
from tests.app.store.failing import WAYS
from tests.monitoring.prometheus import Prometheus, needs_prometheus
from tests.sds_clip.embedded import until

pytestmark = [needs_prometheus, pytest.mark.slow]


class Exported(Collector):
    """The gauges of a service, read anew for each scrape."""

    def __init__(self, store: Store, folder: Path) -> None:
        self._gauges = StoreGauges(store, folder, 0)

    def collect(self) -> Iterator[Metric]:
        asyncio.run(self._gauges.refresh())
        yield from self._gauges.collect()


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_failed_job_moves_the_counters_and_raises_the_alert(
    way: Callable[[Store, FakeClock], None],
    database_url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(store_gauges, "FRESH_S", 0.0)
    clock = FakeClock()
    store, registry, port = Store(database_url, clock=clock), CollectorRegistry(), free_ports(2)
    registry.register(Exported(store, tmp_path))
    server, thread = start_http_server(port, "127.0.0.1", registry)
    targets = {"sds-clip": [f"127.0.0.1:{port}"], "sds-clip-worker": []}
    prometheus = Prometheus(tmp_path, port + 1, targets)

    def alert() -> str:
        groups = prometheus.get("rules")["groups"]
        (found,) = (
            rule["state"] for group in groups for rule in group["rules"] if rule["name"] == "SdsClipJobFailed"
        )
        return str(found)

    try:
        before = 'count_over_time(sds_clip_failed_jobs_total{kind="finetune"}[5m]) >= 2'
        until(lambda: prometheus.query(before))
        assert alert() == "inactive"
        way(store, clock)
        moved = f'sds_clip_failures_total{{kind="finetune",outcome="failed",code="{WAYS[way]}"}} == 1'
        until(lambda: prometheus.query(moved))
        until(lambda: alert() == "firing")
    finally:
        prometheus.close()
        server.shutdown()
        server.server_close()
        thread.join()
        store.close()
