"""One trace from a request to the stages of its job, as a collector receives it from a real system."""

import gzip
import os
import socket
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import httpx
import pytest

from sds_clip import Client
from sds_clip.app import tracing
from sds_clip.app.errors import ConfigurationError
from tests.sds_clip.embedded import Running, until
from tests.training import save_coco

IS_INSTALLED = find_spec("opentelemetry.sdk") is not None
TRACE, CALLER = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"


class Collector(ThreadingHTTPServer):
    """Keeps the spans that it is sent, with the name of the service that sent them."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.spans: list[tuple[str, Any]] = []
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def named(self, name: str) -> Any | None:
        """The last span of a name, within the caller's trace."""
        mine = [span for _, span in self.spans if span.trace_id.hex() == TRACE and span.name == name]
        return mine[-1] if mine else None


class _Handler(BaseHTTPRequestHandler):
    server: Collector

    def do_POST(self) -> None:
        from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        for sent in ExportTraceServiceRequest.FromString(body).resource_spans:
            names = {each.key: each.value.string_value for each in sent.resource.attributes}
            for scope in sent.scope_spans:
                self.server.spans += [(names["service.name"], span) for span in scope.spans]
        self.send_response(200)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector() as server:
        yield server
        server.shutdown()


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.skipif(
    not IS_INSTALLED, reason="OpenTelemetry is not installed: pip install 'sds-clip[tracing]'"
)
def test_one_trace_leads_from_the_request_to_the_stages_of_its_job(
    collector: Collector, tmp_path: Path
) -> None:
    system = Running(tmp_path, **{ENDPOINT: collector.url, "OTEL_BSP_SCHEDULE_DELAY": "200"})
    try:
        save_coco(tmp_path / "pairs")
        with Client(system.url) as client:
            dataset = client.upload_dataset(tmp_path / "pairs", format="pairs")["id"]
            body = {
                "training_data": dataset,
                "objective": "clip",
                "hyperparameters": {"steps": 2, "batch_size": 8, "warmup_steps": 1},
            }
            traced = {"traceparent": f"00-{TRACE}-{CALLER}-01"}
            answer = httpx.post(f"{system.url}/finetune", json=body, headers=traced, timeout=60)
            job = client.job(answer.json()["id"])
            job.wait()
            httpx.get(f"{system.url}/jobs?name=secret-plan", headers=traced)
        chain = ["POST /finetune", "attempt", "process", "training"]
        until(lambda: all(collector.named(name) for name in [*chain, "publishing", "GET /jobs"]))
    finally:
        system.close()
    spans = [collector.named(name) for name in chain]
    assert [span.parent_span_id for span in spans] == [
        bytes.fromhex(CALLER),
        *(span.span_id for span in spans[:-1]),
    ]
    assert {name for name, span in collector.spans if span.trace_id.hex() == TRACE} == {
        "sds-clip",
        "sds-clip-worker",
        "sds-clip-job",
    }
    (status,) = [
        each.value.int_value for each in spans[0].attributes if each.key == "http.response.status_code"
    ]
    assert status == 202
    listing = {each.key: each.value.string_value for each in collector.named("GET /jobs").attributes}
    assert (listing["url.path"], listing["url.query"]) == ("/jobs", "REDACTED")
    assert "secret-plan" not in str(collector.spans)
    assert not [span.name for _, span in collector.spans if "/ready" in span.name or "/metrics" in span.name]
    # Each stage ends before the next one begins.
    publishing = collector.named("publishing")
    assert publishing.start_time_unix_nano >= spans[-1].end_time_unix_nano


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.skipif(
    not IS_INSTALLED, reason="OpenTelemetry is not installed: pip install 'sds-clip[tracing]'"
)
def test_collector_that_never_answers_holds_up_no_request_and_no_job(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        endpoint = f"http://127.0.0.1:{silent.getsockname()[1]}"
        system = Running(tmp_path, **{ENDPOINT: endpoint, "OTEL_EXPORTER_OTLP_TIMEOUT": "1"})
        try:
            save_coco(tmp_path / "pairs")
            with Client(system.url) as client:
                dataset = str(client.upload_dataset(tmp_path / "pairs", format="pairs")["id"])
                options = {"steps": 2, "batch_size": 8, "warmup_steps": 1}
                jobs = [
                    client.finetune(dataset, objective="clip", seed=seed, hyperparameters=options)
                    for seed in range(2)
                ]
                assert [job.wait().status for job in jobs] == ["succeeded"] * 2
                assert client.embed(texts=["a red circle"])["results"]
        finally:
            system.close()


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, False),
        ({ENDPOINT: "http://collector:4318"}, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://collector:4318/v1/traces"}, True),
        ({ENDPOINT: ""}, False),
        ({ENDPOINT: "http://collector:4318", "OTEL_SDK_DISABLED": "true"}, False),
        ({ENDPOINT: "http://collector:4318", "OTEL_TRACES_EXPORTER": "none"}, False),
        ({ENDPOINT: "http://collector:4318", "OTEL_TRACES_EXPORTER": ""}, True),
        ({ENDPOINT: "http://collector:4318", "OTEL_TRACES_EXPORTER": "otlp,console"}, True),
    ],
)
def test_traces_are_on_if_the_standard_variables_ask_for_them(
    variables: dict[str, str], expected: bool
) -> None:
    assert tracing.is_on(variables) is expected


def test_missing_packages_are_an_error_that_says_how_to_get_them(monkeypatch: pytest.MonkeyPatch) -> None:
    tracing.configure("off")  # without the variables, nothing is needed
    monkeypatch.setitem(os.environ, ENDPOINT, "http://collector:4318")
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    with pytest.raises(ConfigurationError, match=r"sds-clip\[tracing\]"):
        tracing.configure("service")


def test_other_protocols_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(os.environ, ENDPOINT, "http://collector:4317")
    monkeypatch.setitem(os.environ, "OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
    with pytest.raises(ConfigurationError, match="http/protobuf"):
        tracing.configure("service")
    # The variable of traces goes before the one of all signals.
    monkeypatch.setitem(os.environ, "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "http/protobuf")
    monkeypatch.setitem(os.environ, "OTEL_BSP_SCHEDULE_DELAY", "-1")
    if IS_INSTALLED:
        with pytest.raises(ConfigurationError, match="wrong value"):
            tracing.configure("service")
