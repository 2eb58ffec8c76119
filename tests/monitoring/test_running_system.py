"""A real Prometheus over a real system: what the dashboards and alerts ask for is there."""

import contextlib
import io
import json
import os
import re
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image

from sds_clip import Client
from tests.app.conftest import png
from tests.app.serverside import free_ports
from tests.monitoring.prometheus import (
    DASHBOARDS,
    ONLY_WITH_A_GPU,
    Prometheus,
    alerts,
    needs_prometheus,
    queries,
    selectors,
)
from tests.sds_clip.embedded import PATIENCE_S, Running, until
from tests.training import save_coco
from tools.dashboard_pictures import NoData, Panel, ask, draw

pytestmark = [
    needs_prometheus,
    pytest.mark.slow,
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="finds processes in /proc"),
]

ONLY_AFTER_AN_ERROR_OF_THE_SERVER = {
    'sds_clip_requests_total{status=~"5..",route!~"/health|/ready|/metrics"}'
}
SHORT = {"steps": 2, "batch_size": 8, "warmup_steps": 1}
ENDLESS = {**SHORT, "steps": 100_000}


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """Over a system with a job that has succeeded, one that has failed, one at work, and a refusal."""
    folder = tmp_path_factory.mktemp("monitoring")
    port = free_ports(3)
    system = Running(
        folder,
        SDS_CLIP_METRICS_PORT=str(port),
        SDS_CLIP_MAX_ATTEMPTS="1",
        SDS_CLIP_MAX_OPEN_JOBS="1",
    )
    workers = [f"127.0.0.1:{port}", f"127.0.0.1:{port + 1}"]
    server = Prometheus(
        folder, port + 2, {"sds-clip": [system.url.removeprefix("http://")], "sds-clip-worker": workers}
    )
    try:
        save_coco(folder / "pairs")
        with Client(system.url) as client:
            client.match([png()], ["a dog", "a cat"])
            dataset = client.upload_dataset(folder / "pairs", format="pairs")["id"]
            client.finetune(dataset, objective="clip", hyperparameters=SHORT, promote="always").wait()
            failing = client.finetune(dataset, objective="clip", hyperparameters=ENDLESS)
            until(
                lambda: (
                    failing.refresh().info["status"] == "running"
                    and system.part("sds_clip.worker.job_process")
                )
            )
            process = system.part("sds_clip.worker.job_process")
            assert process is not None
            os.kill(process, signal.SIGKILL)
            until(lambda: failing.refresh().info["status"] == "failed")
            open_job = client.finetune(dataset, objective="clip", hyperparameters=ENDLESS)
            until(lambda: open_job.refresh().info["status"] == "running")
            refused = {"training_data": dataset, "objective": "clip", "hyperparameters": SHORT}
            answer = httpx.post(f"{system.url}/finetune", json=refused, timeout=60)
            assert answer.status_code == 429, open_job.refresh().info
            # Again, because a series that first appears with 1 has no rate.
            client.match([png()], ["a dog", "a house"])
        yield server
    finally:
        server.close()
        system.close()


def has_numbers(result: list[Any]) -> bool:
    return any(sample["value"][1] != "NaN" for sample in result)


def until_there(prometheus: Prometheus, expressions: list[str]) -> list[str]:
    """Wait until each has data. Returns those that still have none after a time that only a fault takes."""
    deadline = time.monotonic() + PATIENCE_S
    left = expressions
    while left and time.monotonic() < deadline:
        left = [expression for expression in left if not has_numbers(prometheus.query(expression))]
        time.sleep(0.5 if left else 0)
    return left


def test_every_target_answers(prometheus: Prometheus) -> None:
    def healthy() -> bool:
        targets = prometheus.get("targets")["activeTargets"]
        return [each["health"] for each in targets] == ["up"] * 3

    until(healthy)


@pytest.mark.parametrize("dashboard", DASHBOARDS, ids=lambda file: file.stem)
def test_every_query_of_a_dashboard_has_data(prometheus: Prometheus, dashboard: Path) -> None:
    asked = [
        expression.replace("$__rate_interval", "10m")
        for expression in queries(dashboard)
        if not ONLY_WITH_A_GPU.intersection(selectors(expression))
    ]
    assert len(asked) > 10
    assert until_there(prometheus, asked) == []


def last_minutes() -> list[float]:
    now = time.time()
    return [now - 600 + 2 * number for number in range(301)]


@pytest.mark.parametrize("dashboard", DASHBOARDS, ids=lambda file: file.stem)
def test_the_data_of_a_dashboard_are_drawn(prometheus: Prometheus, dashboard: Path) -> None:
    panels: list[Panel] = []

    def asked() -> bool:
        with contextlib.suppress(NoData):  # yet
            panels.extend(ask(prometheus, dashboard, last_minutes()))
        return panels != []

    until(asked)
    assert {panel.title for panel in panels if not panel.lines} <= {"GPU memory"}
    with Image.open(io.BytesIO(draw("A title", panels, last_minutes()))) as picture:
        assert picture.format == "PNG"


def test_a_panel_that_would_be_empty_is_named(prometheus: Prometheus, tmp_path: Path) -> None:
    target = {"expr": "sds_clip_no_such_metric", "legendFormat": ""}
    file = tmp_path / "dashboard.json"
    file.write_text(json.dumps({"panels": [{"title": "Not there", "targets": [target]}]}))
    with pytest.raises(NoData, match='"Not there" has no data for sds_clip_no_such_metric'):
        ask(prometheus, file, last_minutes())


def test_every_alert_selects_what_is_there(prometheus: Prometheus) -> None:
    named = {one for rule in alerts().values() for one in selectors(rule["expr"])}
    assert len(named) > 10
    assert until_there(prometheus, sorted(named - ONLY_AFTER_AN_ERROR_OF_THE_SERVER)) == []
    without_status = [re.sub(r"\{.*", "", one) for one in ONLY_AFTER_AN_ERROR_OF_THE_SERVER]
    assert until_there(prometheus, [f'{name}{{status!=""}}' for name in without_status]) == []


def test_rules_are_evaluated_and_the_failed_job_raises_its_alert(prometheus: Prometheus) -> None:
    def rules() -> dict[str, dict[str, str]]:
        groups = prometheus.get("rules")["groups"]
        return {rule["name"]: rule for group in groups for rule in group["rules"]}

    until(lambda: all(rule["health"] != "unknown" for rule in rules().values()))
    assert {name for name, rule in rules().items() if rule["health"] != "ok"} == set()
    assert rules().keys() == alerts().keys()
    until(lambda: rules()["SdsClipJobFailed"]["state"] == "firing")
