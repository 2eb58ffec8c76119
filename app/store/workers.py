"""The workers' heartbeats: one row for each supervisor, which renews it every few seconds."""

from collections.abc import Mapping

from sqlalchemy import RowMapping, delete, insert, select, update

from sds_clip.app.store.part import Part
from sds_clip.app.store.records import Job, NewWorker, Worker
from sds_clip.app.store.states import HELD, JobKind
from sds_clip.app.store.tables import NO_CHECK, jobs, workers

HEARTBEAT_S = 10.0
LIVING_S = 3 * HEARTBEAT_S
"""A worker that was not seen for this long is considered dead."""
FORGET_AFTER_S = 24 * 3600.0


class Workers(Part):
    """The table of workers. With an owner, the job of a worker is not shown if it belongs to another."""

    def beat(self, worker: NewWorker, *, clock_skew_s: float = 0.0, out_because: str | None = None) -> None:
        """Record that the worker is alive, and forget workers that were not seen for a day."""
        with self._database.writing() as connection:
            now = self._clock()
            seen = {
                **vars(worker),
                "seen_at": now,
                "clock_skew_s": clock_skew_s,
                "out_because": out_because,
            }
            if (
                connection.execute(update(workers).where(workers.c.id == worker.id).values(seen)).rowcount
                == 0
            ):
                connection.execute(insert(workers).values(seen))
            connection.execute(delete(workers).where(workers.c.seen_at < now - FORGET_AFTER_S))

    def leave(self, worker_id: str) -> None:
        with self._database.writing() as connection:
            connection.execute(delete(workers).where(workers.c.id == worker_id))

    def list(self) -> tuple[Worker, ...]:
        """Every worker of the last day, most recently seen first."""
        held = select(jobs.c.lease_owner, jobs.c.id).where(
            jobs.c.status.in_(sorted(HELD)), NO_CHECK, *self._seen
        )
        with self._database.reading() as connection:
            rows = connection.execute(select(workers).order_by(workers.c.seen_at.desc())).mappings().all()
            at_work: dict[str | None, str] = {row.lease_owner: row.id for row in connection.execute(held)}
        return tuple(self._worker(row, at_work.get(row["id"])) for row in rows)

    def living_queues(self) -> Mapping[JobKind, int]:
        """The kinds of jobs that living workers take, with the most devices of a slot.

        All check data sets, which needs no device. So those that take no jobs count for checks. Their rows do not
        tell if the data folder is away, without which they check none either.
        """
        living = select(workers.c.queue, workers.c.device, workers.c.out_because.is_(None))
        living = living.where(workers.c.seen_at >= self._clock() - LIVING_S).distinct()
        found = dict[JobKind, int]()
        with self._database.reading() as connection:
            for kind, device, takes_jobs in connection.execute(living):
                found[JobKind.CHECK] = 1
                if takes_jobs:
                    found[kind] = max(found.get(kind, 1), 1 + device.count(","))
        return found

    def silent_since(self, job: Job) -> float | None:
        """Since when the worker that holds a job has not been heard of. None if none holds it, or it was heard lately.

        Its supervisor sends heartbeats, and the job's process renews the lease.
        """
        if job.status not in HELD or job.lease_until is None:
            return None
        seen = select(workers.c.seen_at).where(workers.c.id == job.lease_owner)
        with self._database.reading() as connection:
            seen_at: float | None = connection.execute(seen).scalar_one_or_none()
        now = self._clock()
        if seen_at is not None and seen_at < now - LIVING_S:
            return seen_at
        return job.lease_until if job.lease_until < now else None

    def _worker(self, row: RowMapping, job_id: str | None) -> Worker:
        alive = row["seen_at"] >= self._clock() - LIVING_S
        return Worker.of({**row, "alive": alive, "job_id": job_id})
