"""The metrics of a service without a database."""

import pytest
from prometheus_client.core import Metric

from sds_clip.app import metrics
from sds_clip.app.metrics import Metrics, gauge


def test_metrics_are_made_once_in_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    now, read = [0.0], list[float]()

    def values() -> list[Metric]:
        read.append(now[0])
        return [gauge("things", "Things.", len(read))]

    made = Metrics()
    made.watch(values)
    read.clear()  # the registry has asked for names
    monkeypatch.setattr(metrics, "FRESH_S", 1.0)
    monkeypatch.setattr("sds_clip.app.metrics.time.monotonic", lambda: now[0])
    first = made.render()
    now[0] = 0.9
    assert made.render() == first
    now[0] = 1.0
    assert made.render() != first
    assert read == [0.0, 1.0]
