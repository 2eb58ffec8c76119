"""Jobs as workers see them: claim, renew, report, let go, finish. Every effect is guarded by the fence."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Select, and_, or_, select, update

from app.jobs.states import HELD, Action, JobKind, JobStatus
from app.store import registry
from app.store.assets import Move, NewVersion
from app.store.database import Clock, Database
from app.store.journal import Journal
from app.store.records import MAX_ATTEMPTS, EventType, Job, JobError, Json, Lease, Level, as_json
from app.store.tables import ELIGIBLE, jobs
from app.store.transitions import held_job, leased_job, lost, move

EXHAUSTED = "attempts_exhausted"
_HELD = sorted(HELD)


class Work:
    """The workers' side of the jobs table. One short transaction a method.

    A lease says until when nobody else takes the job; the fence says whose effects count. A worker that
    was stopped past its lease may go on if nobody has claimed the job, and changes nothing if somebody has.

    Every method raises StoreUnavailable when the database is away, and those that take a lease raise
    LeaseLost when the fence has moved or the job has ended, unless they say otherwise (`came_on` does nothing
    then). LeaseLost after StoreUnavailable may mean that the first try took effect: either way the worker has no more
    to say.
    """

    def __init__(self, database: Database, clock: Clock, journal: Journal) -> None:
        self._database = database
        self._clock = clock
        self._journal = journal

    def claim(self, kind: JobKind, owner: str, ttl_s: float) -> Job | None:
        """Take the oldest job of a kind that is queued and due, or running under a lease that has ended.

        Returns the job, `running`, its fence and attempt one higher and its lease `ttl_s` long, or None.
        Jobs met on the way whose attempts are used up become `failed` with the code attempts_exhausted.
        """
        while True:
            with self._database.writing() as connection:
                now = self._clock()
                row = connection.execute(eligible(kind, now)).one_or_none()
                if row is None:
                    return None
                job = Job.of(row._mapping)
                if job.attempt < job.max_attempts:
                    return _take(connection, job, owner, now, now + ttl_s)
                _exhaust(connection, job, now)

    def renew(self, lease: Lease, ttl_s: float) -> JobStatus | None:
        """Lengthen the lease to `ttl_s` from now; None, which is false, when it is lost.

        Returns what is asked of the worker: RUNNING to go on, PAUSING or CANCELLING to checkpoint and
        `release`.
        """
        with self._database.writing() as connection:
            status = connection.execute(
                _guarded(lease).values(lease_until=self._clock() + ttl_s).returning(jobs.c.status)
            ).scalar_one_or_none()
        return None if status is None else JobStatus(status)

    def progress(
        self,
        lease: Lease,
        *,
        stage: str,
        step: int,
        steps: int | None = None,
        estimated_finish: float | None = None,
    ) -> None:
        """Say how far the job is. A resumed job's step goes back to its checkpoint's."""
        with self._database.writing() as connection:
            _update(connection, lease, stage=stage, step=step, steps=steps, estimated_finish=estimated_finish)

    def came_on(self, lease: Lease) -> None:
        """The attempt has left a checkpoint of its own: it counts as the first one, however many were before it.

        So what outages interrupt again and again is not lost, and what dies at the same step each time fails.
        """
        allowed = jobs.c.attempt + MAX_ATTEMPTS - 1
        with self._database.writing() as connection:
            connection.execute(
                _guarded(lease).where(jobs.c.max_attempts < allowed).values(max_attempts=allowed)
            )

    def event(
        self,
        lease: Lease,
        message: str,
        *,
        level: Level = Level.INFO,
        type: str = EventType.MESSAGE,
        data: Json | None = None,
    ) -> int:
        """Add an event; returns its number."""
        with self._database.writing() as connection:
            number = _next_number(connection, lease)
            self._journal.add(
                connection,
                lease.job_id,
                number,
                self._clock(),
                level=level,
                type=type,
                message=message,
                data=data,
            )
        return number

    def metrics(self, lease: Lease, step: int, values: Mapping[str, float]) -> int:
        """Record metrics at a step; see `points`."""
        return self.points(lease, {step: values})

    def points(self, lease: Lease, points: Mapping[int, Mapping[str, float]]) -> int:
        """Record metrics by step, in one transaction: each as an event and on the curve.

        Returns the last event's number. A step that a resumed job repeats replaces what an earlier attempt recorded
        there.
        """
        with self._database.writing() as connection:
            last = _next_number(connection, lease, count=len(points), step=max(points))
            self._journal.add_points(connection, lease.job_id, last, self._clock(), points)
        return last

    def release(self, lease: Lease, message: str = "Its worker stopped at a checkpoint.") -> Job:
        """Let go of a job at a checkpoint: by a shutdown, or because pausing or cancelling was asked for.

        Returns the job: `queued` or `paused`, not counted as an attempt; or `cancelled`. Publish a wake-up after
        this where it is queued.
        """
        with self._database.writing() as connection:
            job = held_job(connection, lease)
            now = self._clock()
            goes_on = job.status is not JobStatus.CANCELLING
            attempt = max(0, job.attempt - 1) if goes_on else job.attempt
            return move(connection, job, Action.RELEASE, now, message, attempt=attempt, not_before=now)

    def suspend(self, lease: Lease, reason: JobError) -> Job:
        """Pause a job that cannot go on until a person has done something; its checkpoints stay.

        Returns the job: `paused` with the reason, which its event tells too, and not counted as an attempt; or
        `cancelled` where that was asked for.
        """
        with self._database.writing() as connection:
            job = held_job(connection, lease)
            cancels = job.status is JobStatus.CANCELLING
            return move(
                connection,
                job,
                Action.SUSPEND,
                self._clock(),
                reason.message,
                level=Level.WARNING,
                data={"error": as_json(reason)},
                attempt=max(0, job.attempt - 1),
                **({} if cancels else {"pause_reason": as_json(reason)}),
            )

    def fail(self, lease: Lease, error: JobError, *, retry_in_s: float | None = None) -> Job:
        """End an attempt with an error; with `retry_in_s` the job is queued again while it has attempts left.

        Returns the job: `failed` with the error, or `queued`; where its worker was asked to stop, it is
        `cancelled`, or with `retry_in_s` `paused`. The event of the transition tells the error either way.
        """
        with self._database.writing() as connection:
            job = held_job(connection, lease)
            now = self._clock()
            again = retry_in_s is not None and job.attempt < job.max_attempts
            action = Action.RELEASE if again else Action.FAIL
            values: dict[str, Any] = {"not_before": now + (retry_in_s or 0)} if again else {}
            if not again and job.status is not JobStatus.CANCELLING:
                values["error"] = as_json(error)
            return move(
                connection,
                job,
                action,
                now,
                error.message,
                level=Level.WARNING if again else Level.ERROR,
                data={"error": as_json(error)},
                **values,
            )

    def succeed(
        self,
        lease: Lease,
        *,
        version: NewVersion | None = None,
        files: Path | None = None,
        result: Json | None = None,
        promotion: Move | None = None,
    ) -> Job:
        """End a job with what it made: its version, its result and the alias's move, or none of them.

        Returns the job: `succeeded`; or `cancelled` where that was asked for meanwhile, and then there is
        no version. The same weights may be registered already (training is deterministic): then the job's
        result is that version. `files` is where this process sees the version's folder. Calling again with
        the same lease and version, after an answer that was lost, returns the same job.

        Raises, and nothing has changed then: AliasMoved where the alias is no longer what the promotion was decided
        on; VersionGone where the files were removed; UnusableRecord where the version's base was deleted.
        """
        with self._database.writing() as connection:
            job = leased_job(connection, lease)
            made = None if version is None else version.id
            if job.status is JobStatus.SUCCEEDED and job.result_version == made:
                return job
            if job.status not in HELD:
                raise lost(lease)
            now = self._clock()
            if job.status is JobStatus.CANCELLING:
                return move(connection, job, Action.SUCCEED, now, "Cancelled when it was about to succeed.")
            if version is not None:
                _make(connection, job, version, files, promotion, now)
            return move(
                connection,
                job,
                Action.SUCCEED,
                now,
                "The job succeeded.",
                data={"version": made},
                result_version=made,
                result=None if result is None else dict(result),
            )


def eligible(kind: JobKind, now: float) -> Select[tuple[Any, ...]]:
    """The statement of `claim`: the oldest job that may be taken, locked, past those that others lock."""
    return (
        select(jobs)
        .where(
            jobs.c.kind == kind,
            ELIGIBLE,
            or_(
                and_(jobs.c.status == JobStatus.QUEUED, jobs.c.not_before <= now),
                and_(jobs.c.status == JobStatus.RUNNING, jobs.c.lease_until <= now),
            ),
        )
        .order_by(jobs.c.created_at, jobs.c.id)
        .limit(1)
        .with_for_update(skip_locked=True)
    )


def _take(connection: Connection, job: Job, owner: str, now: float, until: float) -> Job:
    return move(
        connection,
        job,
        Action.CLAIM,
        now,
        f"A worker took the job (attempt {job.attempt + 1} of {job.max_attempts}).",
        data={"owner": owner, "fence": job.fence + 1},
        fence=job.fence + 1,
        attempt=job.attempt + 1,
        lease_owner=owner,
        lease_until=until,
        started_at=job.started_at if job.started_at is not None else now,
    )


def _exhaust(connection: Connection, job: Job, now: float) -> None:
    error = JobError(
        EXHAUSTED,
        f"The job was begun {job.attempt} times and its worker died each time; see its events.",
    )
    move(connection, job, Action.EXHAUST, now, error.message, level=Level.ERROR, error=as_json(error))


def _make(
    connection: Connection,
    job: Job,
    version: NewVersion,
    files: Path | None,
    promotion: Move | None,
    now: float,
) -> None:
    """Register what a job made, and point an alias at it."""
    if promotion is not None:
        registry.locked_alias(connection, promotion.alias)  # aliases before versions, as everywhere
    registry.register(connection, version, now, job_id=job.id, files=files)
    if promotion is not None:
        registry.point(connection, promotion, version.id, now, job_id=job.id)


def _guarded(lease: Lease) -> Any:
    return update(jobs).where(
        jobs.c.id == lease.job_id, jobs.c.fence == lease.fence, jobs.c.status.in_(_HELD)
    )


def _update(connection: Connection, lease: Lease, **values: Any) -> None:
    if connection.execute(_guarded(lease).values(**values)).rowcount != 1:
        raise lost(lease)


def _next_number(connection: Connection, lease: Lease, *, count: int = 1, **values: Any) -> int:
    """Take the next `count` events' numbers from the job's row, which stays locked until this transaction ends.

    Returns the last of them.
    """
    statement = _guarded(lease).values(event_count=jobs.c.event_count + count, **values)
    number: int | None = connection.execute(statement.returning(jobs.c.event_count)).scalar_one_or_none()
    if number is None:
        raise lost(lease)
    return number
