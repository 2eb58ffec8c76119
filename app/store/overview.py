"""What operators watch: how many jobs, workers, data sets and versions there are, and how old the queues are."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from sqlalchemy import Connection, Table, func, select

from sds_clip.app.store.part import Part
from sds_clip.app.store.records import WITH_FILES, DatasetStatus, VersionStatus
from sds_clip.app.store.states import HELD, JobKind, JobStatus
from sds_clip.app.store.tables import datasets, failures, jobs, versions, workers
from sds_clip.app.store.workers import LIVING_S


@dataclass(frozen=True)
class Overview:
    """Counts at one moment. What does not occur has the count 0."""

    jobs: Mapping[tuple[JobKind, JobStatus], int]
    queue_age_s: Mapping[JobKind, float]
    """How long the job that has waited longest has been queued. 0 if none is."""
    lease_left_s: Mapping[JobKind, float]
    """The least time left of a lease, negative once it has lapsed. Kinds without a lease are left out."""
    workers: Mapping[tuple[JobKind, bool], int]
    """By queue, and by whether they were seen lately."""
    busy: Mapping[JobKind, int]
    """The living workers that hold a job."""
    out: Mapping[JobKind, int]
    """The living workers that take no jobs because of a fault of their own."""
    failures: Mapping[tuple[JobKind, str, str], int]
    """How many jobs have failed, and attempts ended with an error, by kind, outcome and code. They only grow."""
    datasets: Mapping[DatasetStatus, int]
    dataset_bytes: Mapping[DatasetStatus, float]
    """The sizes of uploads. Registered data do not count."""
    versions: Mapping[VersionStatus, int]
    version_bytes: Mapping[VersionStatus, float]

    def failed_jobs(self, kind: JobKind) -> int:
        """How many jobs of a kind have failed, of any cause."""
        counts = self.failures.items()
        return sum(count for name, count in counts if name[:2] == (kind, JobStatus.FAILED))


class Overviews(Part):
    """Reads all counts in one transaction."""

    def read(self) -> Overview:
        now = self._clock()
        with self._database.reading() as connection:
            of_datasets, dataset_bytes = _by_status(connection, datasets, DatasetStatus)
            of_versions, version_bytes = _by_status(connection, versions, VersionStatus)
            return Overview(
                **_jobs(connection, now),
                **_workers(connection, now),
                failures={
                    (kind, outcome, code): times
                    for kind, outcome, code, times in connection.execute(select(failures))
                },
                datasets=of_datasets,
                dataset_bytes={status: dataset_bytes[status] for status in WITH_FILES},
                versions=of_versions,
                version_bytes=version_bytes,
            )


def _jobs(connection: Connection, now: float) -> dict[str, Any]:
    counted = select(jobs.c.kind, jobs.c.status, func.count()).group_by(jobs.c.kind, jobs.c.status)
    queued = select(jobs.c.kind, func.min(jobs.c.queued_at)).where(jobs.c.status == JobStatus.QUEUED)
    held = select(jobs.c.kind, func.min(jobs.c.lease_until)).where(jobs.c.status.in_(sorted(HELD)))
    counts = {(kind, status): count for kind, status, count in connection.execute(counted)}
    since = {kind: at for kind, at in connection.execute(queued.group_by(jobs.c.kind)) if at is not None}
    until = {kind: at for kind, at in connection.execute(held.group_by(jobs.c.kind)) if at is not None}
    return {
        "jobs": {(kind, status): counts.get((kind, status), 0) for kind in JobKind for status in JobStatus},
        "queue_age_s": {kind: max(0.0, now - since.get(kind, now)) for kind in JobKind},
        "lease_left_s": {kind: lease_until - now for kind, lease_until in until.items()},
    }


def _workers(connection: Connection, now: float) -> dict[str, Any]:
    held = select(jobs.c.lease_owner, jobs.c.kind).where(jobs.c.status.in_(sorted(HELD)))
    holding = {(owner, kind) for owner, kind in connection.execute(held)}
    columns = (workers.c.id, workers.c.queue, workers.c.seen_at, workers.c.out_because)
    seen = connection.execute(select(*columns)).all()
    found = [
        (kind, at >= now - LIVING_S, (owner, kind) in holding, out if kind == queue else None)
        for owner, queue, at, out in seen
        for kind in {queue, JobKind.CHECK}
    ]
    return {
        "workers": {
            (kind, alive): sum(each[:2] == (kind, alive) for each in found)
            for kind in JobKind
            for alive in (True, False)
        },
        "busy": {kind: sum(each[:3] == (kind, True, True) for each in found) for kind in JobKind},
        "out": {
            kind: sum(each[:2] == (kind, True) and each[3] is not None for each in found) for kind in JobKind
        },
    }


def _by_status(
    connection: Connection, table: Table, statuses: Iterable[StrEnum]
) -> tuple[dict[Any, int], dict[Any, float]]:
    """How many rows have each status, and the sums of their sizes."""
    size = func.sum(table.c.size_bytes)
    query = select(table.c.status, func.count(), size).group_by(table.c.status)
    counts: dict[Any, int] = dict.fromkeys(statuses, 0)
    sizes: dict[Any, float] = dict.fromkeys(statuses, 0.0)
    for status, count, size_bytes in connection.execute(query):
        counts[status], sizes[status] = count, float(size_bytes or 0)
    return counts, sizes
