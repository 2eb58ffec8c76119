"""Gauges of the database and the data disk, read at a scrape.

A scrape waits only briefly, and never holds up requests. While the database does not answer, its gauges are left out
and `sds_clip_store_up` is 0.
"""

import asyncio
import contextlib
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from prometheus_client.core import Metric

from sds_clip.app.errors import StoreUnavailable
from sds_clip.app.joined_calls import JoinedCalls
from sds_clip.app.metrics import clock_skew, counter, gauge
from sds_clip.app.store import Store
from sds_clip.app.store.overview import Overview
from sds_clip.app.store.states import JobKind
from sds_clip.app.threads import in_own_thread

FRESH_S = 5.0
"""How long values are used again, so that several scrapers cost one reading."""
WAIT_S = 2.0
"""How long a scrape waits for a reading. One that takes longer goes on, and later scrapes use it."""
KEEP_S = 60.0
"""How long the values of the last reading are used while the next one takes longer."""


@dataclass(eq=False)
class StoreGauges:
    """One reading at a time, in a thread of its own. Only the event loop uses it."""

    _store: Store
    _data_dir: Path
    _reserve_bytes: int
    is_open: Callable[[], bool] = lambda: True
    """Whether the tables exist."""
    has_its_folder: Callable[[], bool] = lambda: True
    _readings: JoinedCalls[str, None] = field(default_factory=JoinedCalls)
    _overview: Overview | None = None
    _free_bytes: int | None = None
    _read_at: float = float("-inf")

    async def refresh(self) -> None:
        """Read the values again if they are old. While a reading takes long, the last values stay, for a minute."""
        if time.monotonic() - self._read_at < FRESH_S:
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(WAIT_S):
                await self._readings.run("all", self._read, "gauges")
        if time.monotonic() - self._read_at > KEEP_S:
            self._overview = None

    async def close(self) -> None:
        await self._readings.close()

    def collect(self) -> Iterator[Metric]:
        yield gauge("store_up", "1 if the database answered the last reading.", self._overview is not None)
        yield gauge("data_folder_up", "1 if the data folder is the database's.", self.has_its_folder())
        if self._free_bytes is not None:
            yield gauge("disk_free_bytes", "Free space on the disk of data_dir.", self._free_bytes)
            yield gauge(
                "disk_reserve_bytes", "The free space that must remain, in bytes.", self._reserve_bytes
            )
        if self._overview is not None:
            yield from _gauges(self._overview)
            yield clock_skew(self._store.clock_skew_s())

    async def _read(self) -> None:
        self._free_bytes = None
        # The disk first: it may answer while the database does not.
        self._free_bytes = await in_own_thread(self._disk, "disk gauges")
        self._overview = await in_own_thread(self._rows, "store gauges")
        self._read_at = time.monotonic()

    def _disk(self) -> int | None:
        with contextlib.suppress(OSError):
            return shutil.disk_usage(self._data_dir).free
        return None

    def _rows(self) -> Overview | None:
        try:
            return self._store.overviews.read() if self.is_open() else None
        except StoreUnavailable:  # the store logs it
            return None


def _gauges(overview: Overview) -> Iterable[Metric]:
    yield gauge("jobs", "The number of jobs.", overview.jobs, ("kind", "status"))
    yield gauge(
        "queue_age_seconds",
        "How long the job that has waited longest has been queued. 0 if none is.",
        overview.queue_age_s,
        ("kind",),
    )
    yield gauge(
        "lease_left_seconds",
        "The least time left of a lease on a job. It is negative once the lease has lapsed.",
        overview.lease_left_s,
        ("kind",),
    )
    yield gauge(
        "workers",
        "The number of workers. One that was not seen for 30 seconds is not alive.",
        {(kind, str(alive).lower()): count for (kind, alive), count in overview.workers.items()},
        ("kind", "alive"),
    )
    yield gauge("busy_slots", "The number of living workers that hold a job.", overview.busy, ("kind",))
    yield gauge(
        "workers_out",
        "The number of living workers that take no jobs because of a fault of their own.",
        overview.out,
        ("kind",),
    )
    yield counter(
        "failures",
        "The number of jobs that have failed, and of attempts that ended with an error after which the job goes on.",
        overview.failures,
        ("kind", "outcome", "code"),
    )
    # A counter that first appears with the value 1 has no increase, and codes are not known in advance.
    failed = {kind: overview.failed_jobs(kind) for kind in JobKind}
    yield counter("failed_jobs", "The number of jobs that have failed.", failed, ("kind",))
    yield gauge("datasets", "The number of data sets.", overview.datasets, ("status",))
    yield gauge("dataset_bytes", "The sizes of uploaded data sets.", overview.dataset_bytes, ("status",))
    yield gauge("versions", "The number of versions.", overview.versions, ("status",))
    yield gauge("version_bytes", "The sizes of versions.", overview.version_bytes, ("status",))
