"""A worker's own metrics: what its slot observes of light jobs, and the port that offers them."""

import os
import re
import socket
import sys
import threading
import urllib.request

import pytest
from prometheus_client import generate_latest

from sds_clip.app.errors import ConfigurationError
from sds_clip.app.store.records import Lease
from sds_clip.app.store.states import JobStatus
from sds_clip.worker.config import WorkerConfig
from sds_clip.worker.metrics import WorkerMetrics, serve
from sds_clip.worker.protocol import Ticks
from sds_clip.worker.supervised import ChildProcess
from tests.worker.waiting import PATIENCE_S, until
from tests.worker.work import Work


@pytest.fixture
def metrics(config: WorkerConfig) -> WorkerMetrics:
    return WorkerMetrics(config.data_dir, config.disk_reserve_bytes)


def value(metrics: WorkerMetrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(f"sds_clip_{name}", labels)


def ended(metrics: WorkerMetrics, outcome: str) -> float | None:
    return value(metrics, "attempts_total", kind="finetune", outcome=outcome)


def test_attempts_are_counted_by_how_they_ended(work: Work, metrics: WorkerMetrics) -> None:
    good, _, last = work.light("count", steps=2), work.light("be_wrong"), work.light("die", max_attempts=2)
    with work.running(metrics=metrics):
        work.until(good, JobStatus.SUCCEEDED)
        work.until(last, JobStatus.FAILED)
        until(lambda: value(metrics, "attempt_seconds_count", kind="finetune") == 4)
    outcomes = ("succeeded", "retried", "failed", "unknown")
    assert [ended(metrics, outcome) for outcome in outcomes] == [1, 1, 2, 0]
    assert work.store.overviews.read().failures == {
        (work.config.kind, "failed", "nothing_learned"): 1,
        (work.config.kind, "failed", "process_died"): 1,
        (work.config.kind, "retried", "process_died"): 1,
    }
    assert value(metrics, "slot_busy", kind="finetune") == 0
    assert value(metrics, "interruptions_total", kind="finetune", reason="released") == 0


def test_running_job_has_a_lease_that_is_renewed_and_memory(work: Work, metrics: WorkerMetrics) -> None:
    work.light("count", steps=100_000)
    with work.running(metrics=metrics, lease_ttl_s=6) as slot:
        until(lambda: (value(metrics, "lease_renewals_total", kind="finetune") or 0) >= 2)
        assert value(metrics, "slot_busy", kind="finetune") == 1
        assert (value(metrics, "job_memory_bytes", memory="host") or 0) > 2**20
        assert (value(metrics, "lease_left_seconds", kind="finetune") or 60) <= 6
        slot.stop()
        assert slot.join(PATIENCE_S)
    assert ended(metrics, "released") == 1
    assert value(metrics, "interruptions_total", kind="finetune", reason="released") == 1
    assert value(metrics, "job_memory_bytes", memory="host") == 0


def test_job_taken_over_after_its_lease_lapsed_is_an_interruption(work: Work, metrics: WorkerMetrics) -> None:
    job = work.light("count", steps=1)
    lost = work.store.leases.claim(work.config.kind, "gone", 0.0)
    assert lost is not None
    with work.running(metrics=metrics):
        work.until(job, JobStatus.SUCCEEDED)
        until(lambda: ended(metrics, "succeeded"))
    assert value(metrics, "interruptions_total", kind="finetune", reason="lapsed") == 1
    former = WorkerMetrics(work.config.data_dir, work.config.disk_reserve_bytes)
    former.slot(work.config.kind).end(work.store.events.transitions(job.id), Lease.of(lost).fence, 1.0)
    assert ended(former, "lost") == 1


def test_process_tells_its_device_memory_and_that_is_no_step() -> None:
    code = "import os, sys; sys.stdin.readline(); os.write(int(sys.argv[2]), b'm7\\nm12345\\n'); sys.stdin.read()"
    child = ChildProcess([sys.executable, "-c", code])
    try:
        child.assign("go")
        before = child._last_step_at
        until(lambda: child.stalled_s() and child.device_bytes)
        assert (child.device_bytes, child.has_begun, child._last_step_at) == (12345, False, before)
    finally:
        child.close()


def test_memory_is_written_beside_steps() -> None:
    reading, writing = os.pipe()
    ticks = Ticks(writing)
    ticks.tick(3)
    ticks.memory(2**33)
    assert os.read(reading, 100) == b"3\nm8589934592\n"
    os.close(reading)
    os.close(writing)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_worker_offers_its_metrics_at_its_port(work: Work) -> None:
    port = free_port()
    with work.worker(metrics_port=port, checks_datasets=True) as process:

        def scraped() -> str:
            assert process.poll() is None
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30) as answer:
                    return str(answer.read().decode())
            except OSError:
                return ""

        until(lambda: "sds_clip_heartbeat_age_seconds" in scraped())
        assert re.search(r"^sds_clip_clock_skew_seconds -?[0-9.e-]+$", scraped(), re.MULTILINE)
        for kind in ("finetune", "check"):
            assert f'sds_clip_slot_busy{{kind="{kind}"}} 0.0' in scraped()
            assert f'sds_clip_attempts_total{{kind="{kind}",outcome="succeeded"}} 0.0' in scraped()


def test_port_in_use_is_a_configuration_error_and_port_0_opens_none(metrics: WorkerMetrics) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(ConfigurationError, match="SDS_CLIP_METRICS_PORT"):
            serve(metrics, "127.0.0.1", taken.getsockname()[1])
    threads = threading.active_count()
    serve(metrics, "127.0.0.1", 0)()
    assert threading.active_count() == threads
    assert b"sds_clip_attempts_total" in generate_latest(metrics.registry)
