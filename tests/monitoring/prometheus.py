"""The monitoring files, and a real Prometheus."""

import json
import re
import shutil
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

MONITORING = Path(__file__).parents[2] / "docker" / "monitoring"
DASHBOARDS = sorted((MONITORING / "grafana" / "dashboards").glob("*.json"))
PROMTOOL, PROMETHEUS = shutil.which("promtool"), shutil.which("prometheus")
HOW = "is not installed: apt install prometheus"
ONLY_WITH_A_GPU = {"sds_clip_device_memory_bytes"}
needs_promtool = pytest.mark.skipif(PROMTOOL is None, reason=f"promtool {HOW}")
needs_prometheus = pytest.mark.skipif(PROMETHEUS is None, reason=f"prometheus {HOW}")


def load(name: str) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((MONITORING / name).read_text())
    return loaded


def alerts() -> dict[str, dict[str, Any]]:
    """The rules by their names."""
    return {rule["alert"]: rule for group in load("alerts.yml")["groups"] for rule in group["rules"]}


def queries(dashboard: Path) -> list[str]:
    return [
        target["expr"] for panel in json.loads(dashboard.read_text())["panels"] for target in panel["targets"]
    ]


def selectors(expression: str) -> list[str]:
    """The time series that an expression names, with their matchers."""
    return re.findall(r"\b(?:sds_clip_\w+|up(?=\{))(?:\{[^}]*\})?", expression)


class Prometheus:
    """A server with the monitoring files, which scrapes these targets every second."""

    def __init__(self, folder: Path, port: int, targets: Mapping[str, list[str]]) -> None:
        self._url = f"http://127.0.0.1:{port}"
        config = load("prometheus.yml")
        config["global"] = {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"}
        config["rule_files"] = [str(MONITORING / name) for name in config["rule_files"]]
        for job in config["scrape_configs"]:
            del job["dns_sd_configs"]
            job["static_configs"] = [{"targets": targets[job["job_name"]]}]
        (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
        self._log = (folder / "prometheus.log").open("wb")
        command = [
            str(PROMETHEUS),
            f"--config.file={folder / 'prometheus.yml'}",
            f"--storage.tsdb.path={folder / 'tsdb'}",
            f"--web.listen-address=127.0.0.1:{port}",
        ]
        self._process = subprocess.Popen(command, stdout=self._log, stderr=subprocess.STDOUT)
        self._client = httpx.Client(base_url=self._url, trust_env=False, timeout=60)

    def get(self, path: str, **parameters: str) -> Any:
        """The data of an answer, once the server answers."""
        for _ in range(1200):
            assert self._process.poll() is None, Path(self._log.name).read_text()
            try:
                answer = self._client.get(f"/api/v1/{path}", params=parameters)
            except httpx.TransportError:
                answer = None
            if answer is not None and answer.status_code != 503:
                assert answer.status_code == 200, answer.text
                return answer.json()["data"]
            time.sleep(0.1)
        raise AssertionError("Prometheus does not answer")

    def query(self, expression: str) -> list[Any]:
        found: list[Any] = self.get("query", query=expression)["result"]
        return found

    def query_range(self, expression: str, start: float, end: float, step_s: float) -> list[Any]:
        moments = {"start": f"{start:.3f}", "end": f"{end:.3f}", "step": str(step_s)}
        found: list[Any] = self.get("query_range", query=expression, **moments)["result"]
        return found

    def close(self) -> None:
        self._client.close()
        self._process.terminate()
        self._process.wait()
        self._log.close()
