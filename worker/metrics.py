"""A worker's own metrics. Its supervisor observes them, and a port of its own offers them to Prometheus."""

import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, Histogram, start_http_server
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from sds_clip.app.errors import ConfigurationError
from sds_clip.app.metrics import clock_skew, gauge
from sds_clip.app.store.records import Event
from sds_clip.app.store.retention import Kind
from sds_clip.app.store.states import HELD, JobKind, JobStatus

_MINUTE, _HOUR, _DAY = 60, 3600, 86400
SECONDS = (
    *(1, 10, _MINUTE, 5 * _MINUTE, 15 * _MINUTE),
    *(_HOUR, 3 * _HOUR, 6 * _HOUR, 12 * _HOUR, _DAY, 2 * _DAY, 4 * _DAY, 7 * _DAY),
)
OUTCOMES = ("succeeded", "failed", "cancelled", "paused", "retried", "released", "lost", "unknown")


def ending(transitions: Sequence[Event], fence: int) -> tuple[str, str]:
    """How the attempt with a fence ended, one of OUTCOMES, and the code of its error or "".

    An attempt that another one follows was retried if it ended with an error, and released if not. It is lost if
    another worker claimed the job before it had ended, and unknown if no end is recorded.
    """
    data = [event.data or {} for event in transitions]
    claimed = next((place for place, each in enumerate(data) if each.get("fence") == fence), len(data))
    for each in data[claimed + 1 :]:
        if "fence" in each:
            return "lost", ""
        if each["to"] not in HELD:
            code = each.get("error", {}).get("code", "")
            if each["to"] == JobStatus.QUEUED:
                return ("retried" if code else "released"), code
            return each["to"], code
    return "unknown", ""


@dataclass(frozen=True)
class _Work:
    """The job at work, as it was last seen."""

    pid: int
    lease_until: float
    device_bytes: int


class SlotMetrics:
    """What one slot of a worker observes."""

    def __init__(self, worker: "WorkerMetrics", kind: JobKind, out_because: Callable[[], str | None]) -> None:
        self.kind = kind
        self.out_because = out_because
        self.is_busy = False
        self.work: _Work | None = None
        # A counter that first appears with the value 1 has no increase, so all that are known begin with 0.
        self._attempts = {outcome: worker.attempts.labels(kind, outcome) for outcome in OUTCOMES}
        self._lapsed, self._released = (
            worker.interruptions.labels(kind, reason) for reason in ("lapsed", "released")
        )
        self._renewals = worker.renewals.labels(kind)
        self._seconds = worker.seconds.labels(kind)

    def begin(self) -> None:
        self.is_busy = True

    def watch(self, pid: int, lease_until: float, device_bytes: int) -> None:
        """Note the state of the job at work. A lease that ends later than before was renewed."""
        if self.work is not None and lease_until > self.work.lease_until:
            self._renewals.inc()
        self.work = _Work(pid, lease_until, device_bytes)

    def end(self, transitions: Sequence[Event], fence: int, seconds: float) -> None:
        """Count the attempt that has ended. Without `transitions`, its outcome is unknown."""
        self.is_busy, self.work = False, None
        self._seconds.observe(seconds)
        outcome, _ = ending(transitions, fence)
        self._attempts[outcome].inc()
        if outcome == "released":
            self._released.inc()
        data = [event.data or {} for event in transitions]
        if any(each.get("fence") == fence and each["from"] == JobStatus.RUNNING for each in data):
            self._lapsed.inc()


class WorkerMetrics(Collector):
    """The metrics of a supervisor and its slots, in a registry of their own."""

    def __init__(self, data_dir: Path, reserve_bytes: int) -> None:
        self.registry = CollectorRegistry()
        self._data_dir = data_dir
        self._reserve_bytes = reserve_bytes
        self._slots: list[SlotMetrics] = []
        self._beaten_at: float | None = None
        self._skew_s = 0.0
        counter = partial(Counter, namespace="sds_clip", registry=self.registry)
        self.attempts = counter("attempts", "The number of attempts that ended.", ["kind", "outcome"])
        self.interruptions = counter(
            "interruptions",
            "The number of jobs taken over after their lease had lapsed, and of jobs released.",
            ["kind", "reason"],
        )
        self.renewals = counter("lease_renewals", "The number of renewals of leases.", ["kind"])
        self.seconds = Histogram(
            "sds_clip_attempt_seconds",
            "The duration of attempts, in seconds.",
            ["kind"],
            buckets=SECONDS,
            registry=self.registry,
        )
        removed = counter("removed", "The number of records that retention has removed.", ["kind"])
        removed_bytes = counter("removed_bytes", "The sizes of their files.", ["kind"])
        self._removed = {kind: removed.labels(kind) for kind in Kind}
        self._removed_bytes = {kind: removed_bytes.labels(kind) for kind in Kind}
        self.registry.register(self)

    def slot(self, kind: JobKind, out_because: Callable[[], str | None] = lambda: None) -> SlotMetrics:
        """Those of a further slot."""
        self._slots.append(SlotMetrics(self, kind, out_because))
        return self._slots[-1]

    def removed(self, kind: Kind, size_bytes: int) -> None:
        """Count what retention has removed."""
        self._removed[kind].inc()
        self._removed_bytes[kind].inc(size_bytes)

    def beat(self, skew_s: float) -> None:
        """Note that the worker's heartbeat was recorded, and how far this host's clock is ahead of the database's."""
        self._beaten_at, self._skew_s = time.monotonic(), skew_s

    def collect(self) -> Iterator[Metric]:
        works = {slot.kind: work for slot in self._slots if (work := slot.work) is not None}
        yield gauge(
            "slot_busy",
            "1 while the slot runs a job.",
            {slot.kind: slot.is_busy for slot in self._slots},
            ("kind",),
        )
        yield gauge(
            "slot_out",
            "1 while the slot takes no jobs because of a fault of the worker's own.",
            {slot.kind: slot.out_because() is not None for slot in self._slots},
            ("kind",),
        )
        if self._beaten_at is not None:
            yield gauge(
                "heartbeat_age_seconds",
                "The time since the worker's heartbeat was last recorded.",
                time.monotonic() - self._beaten_at,
            )
            yield clock_skew(self._skew_s)
        yield gauge(
            "lease_left_seconds",
            "The time left of the job's lease.",
            {kind: work.lease_until - (time.time() - self._skew_s) for kind, work in works.items()},
            ("kind",),
        )
        yield gauge(
            "job_memory_bytes",
            "Memory of the jobs' processes, in bytes: resident on the host, and reserved on GPUs.",
            {
                "host": sum(_resident_bytes(work.pid) for work in works.values()),
                "device": sum(work.device_bytes for work in works.values()),
            },
            ("memory",),
        )
        try:
            free_bytes = shutil.disk_usage(self._data_dir).free
        except OSError:
            return
        yield gauge("disk_free_bytes", "Free space on the disk of data_dir.", free_bytes)
        yield gauge("disk_reserve_bytes", "The free space that must remain, in bytes.", self._reserve_bytes)


def serve(metrics: WorkerMetrics, host: str, port: int) -> Callable[[], None]:
    """Offer the metrics over HTTP, in a thread, until the returned function is called. Port 0 offers nothing.

    Raises: ConfigurationError if the port cannot be used.
    """
    if not port:
        return lambda: None
    try:
        server, thread = start_http_server(port, host, metrics.registry)
    except OSError as error:
        raise ConfigurationError(
            f"The worker's metrics cannot be offered at {host} port {port} ({error.strerror}). Set "
            "SDS_CLIP_METRICS_HOST and SDS_CLIP_METRICS_PORT to a free port of this machine."
        ) from error

    def close() -> None:
        server.shutdown()
        server.server_close()
        thread.join()

    return close


def _resident_bytes(pid: int) -> int:
    """0 if the process has ended, or the system has no /proc."""
    try:
        pages = Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1]
    except (OSError, IndexError):
        return 0
    return int(pages) * os.sysconf("SC_PAGE_SIZE")
