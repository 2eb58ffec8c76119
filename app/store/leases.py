"""Jobs as workers see them: claim, renew, report, let go, finish. Every effect is guarded by the fence."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Select, and_, case, or_, select, update

from app.store import version_sql
from app.store.database import Clock, Database
from app.store.job_events import JobEvents
from app.store.records import EventType, Job, JobError, Json, Lease, Level, Move, NewVersion
from app.store.states import HELD, Action, JobKind, JobStatus
from app.store.tables import ELIGIBLE, jobs
from app.store.transitions import held_job, leased_job, lost, move, ran_s

INTERRUPTED = "interrupted_too_often"
OUT_OF_TIME = "run_time_exceeded"
RETRY_BASE_S = 5.0
MAX_BACK_OFF_S = 300.0
_HELD = sorted(HELD)


class JobLeases:
    """The workers' side of the jobs table. One short transaction a method.

    A lease says until when nobody else takes the job; the fence says whose effects count. A worker that
    was stopped past its lease may go on if nobody has claimed the job, and changes nothing if somebody has.

    An attempt that ends under a living supervisor counts against `max_attempts`; a lease that lapses and a worker
    that shuts down are interruptions, and count against `max_interruptions`. A step past the furthest so far
    renews the attempts.

    Every method raises StoreUnavailable when the database is away, and those that take a lease raise
    LeaseLost when the fence has moved or the job has ended, unless they say otherwise. LeaseLost after
    StoreUnavailable may mean that the first try took effect: either way the worker has no more to say.
    """

    def __init__(self, database: Database, clock: Clock, journal: JobEvents) -> None:
        self._database = database
        self._clock = clock
        self._journal = journal

    def claim(
        self,
        kind: JobKind,
        owner: str,
        ttl_s: float,
        *,
        job_id: str | None = None,
        retry_base_s: float = RETRY_BASE_S,
    ) -> Job | None:
        """Take the oldest job of a kind that is queued, or running under a lease that has lapsed, and is due.

        With `job_id`, take that job or none.

        Returns the job, `running`, its fence one higher and its lease `ttl_s` long, or None. From the queue this
        is another attempt; a lapsed lease is an interruption, and the attempt is the same.

        A job that was interrupted and comes to no new step is next due after `retry_base_s`, doubled for every
        further interruption: one that takes its machine down each time does so every five minutes at most.

        Jobs met on the way whose interruptions or running time are used up become `failed`.
        """
        while True:
            with self._database.writing() as connection:
                now = self._clock()
                statement = eligible(kind, now, job_id).with_for_update(skip_locked=True)
                row = connection.execute(statement).one_or_none()
                if row is None:
                    return None
                job = Job.of(row._mapping)
                interruptions = job.interruptions + (job.status is JobStatus.RUNNING)
                if (error := _used_up(job, interruptions, now)) is None:
                    due = now + back_off_s(retry_base_s, interruptions)
                    return _take(connection, job, owner, now, now + ttl_s, interruptions, due)
                _exhaust(connection, job, error, now, interruptions)

    def next_due(self, kind: JobKind) -> Job | None:
        """The job that `claim` would take now, left as it is."""
        with self._database.reading() as connection:
            row = connection.execute(eligible(kind, self._clock())).one_or_none()
        return None if row is None else Job.of(row._mapping)

    def renew(self, lease: Lease, ttl_s: float) -> JobStatus | None:
        """Lengthen the lease to `ttl_s` from now; None, which is false, when it is lost.

        Returns what is asked of the worker: RUNNING to go on, PAUSING or CANCELLING to checkpoint and
        `release`.
        """
        with self._database.writing() as connection:
            renewed = _guarded(lease).values(lease_until=self._clock() + ttl_s)
            status: JobStatus | None = connection.execute(
                renewed.returning(jobs.c.status)
            ).scalar_one_or_none()
        return status

    def progress(
        self,
        lease: Lease,
        *,
        stage: str,
        step: int,
        steps: int | None = None,
        estimated_finish: float | None = None,
        done: int | None = None,
    ) -> None:
        """Say how far the job is. A resumed job's step goes back to its checkpoint's.

        `done` is how many steps of all its stages are done, where it has several. Past the furthest so far, this
        attempt counts as the first one: what dies at the same step each time fails, and nothing else does.
        """
        done = step if done is None else done
        is_past = jobs.c.furthest_step < done
        with self._database.writing() as connection:
            _update(
                connection,
                lease,
                stage=stage,
                step=step,
                steps=steps,
                estimated_finish=estimated_finish,
                furthest_step=case((is_past, done), else_=jobs.c.furthest_step),
                attempt=case((is_past, 1), else_=jobs.c.attempt),
                not_before=case((is_past, self._clock()), else_=jobs.c.not_before),
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

        Returns the job: `queued`, which is an interruption, or `paused`, not counted as an attempt; or
        `cancelled`; or `failed` where its interruptions or its running time are used up, and the end of its running
        time is no interruption. Publish a wake-up after this where it is queued.
        """
        with self._database.writing() as connection:
            job = held_job(connection, lease)
            now = self._clock()
            if job.status is JobStatus.CANCELLING:
                return move(connection, job, Action.RELEASE, now, message)
            interruptions = job.interruptions + (job.status is JobStatus.RUNNING)
            if job.status is JobStatus.RUNNING and (error := _used_up(job, interruptions, now)) is not None:
                if error.code == OUT_OF_TIME:  # its worker stopped it for that
                    interruptions = job.interruptions
                return _exhaust(connection, job, error, now, interruptions)
            return move(
                connection,
                job,
                Action.RELEASE,
                now,
                message,
                attempt=max(0, job.attempt - 1),
                interruptions=interruptions,
                not_before=now,
            )

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
                data={"error": asdict(reason)},
                attempt=max(0, job.attempt - 1),
                **({} if cancels else {"pause_reason": reason}),
            )

    def fail(self, lease: Lease, error: JobError, *, retry_in_s: float | None = None, done: int = 0) -> Job:
        """End an attempt with an error; with `retry_in_s` the job is queued again while it has attempts left.

        `done` is what the attempt may not have lived to tell by `progress`.

        Returns the job: `failed` with the error, or `queued`; where its worker was asked to stop, it is
        `cancelled`, or with `retry_in_s` `paused`. The event of the transition tells the error either way.
        """
        with self._database.writing() as connection:
            job = held_job(connection, lease)
            now = self._clock()
            attempt = 1 if done > job.furthest_step else job.attempt
            again = retry_in_s is not None and attempt < job.max_attempts
            action = Action.RELEASE if again else Action.FAIL
            values: dict[str, Any] = {"attempt": attempt, "furthest_step": max(done, job.furthest_step)}
            if again:
                values["not_before"] = now + (retry_in_s or 0)
            if not again and job.status is not JobStatus.CANCELLING:
                values["error"] = error
            return move(
                connection,
                job,
                action,
                now,
                error.message,
                level=Level.WARNING if again else Level.ERROR,
                data={"error": asdict(error)},
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


def back_off_s(base_s: float, times: int) -> float:
    """How long a job rests after so many setbacks: doubled for each after the first, up to five minutes."""
    return min(MAX_BACK_OFF_S, base_s * 2.0 ** (times - 1)) if times else 0.0


def eligible(kind: JobKind, now: float, job_id: str | None = None) -> Select[tuple[Any, ...]]:
    """The oldest job that may be taken; with `job_id`, that one or none."""
    return (
        select(jobs)
        .where(
            jobs.c.kind == kind,
            ELIGIBLE,
            jobs.c.not_before <= now,
            or_(
                jobs.c.status == JobStatus.QUEUED,
                and_(jobs.c.status == JobStatus.RUNNING, jobs.c.lease_until <= now),
            ),
            *([] if job_id is None else [jobs.c.id == job_id]),
        )
        .order_by(jobs.c.created_at, jobs.c.id)
        .limit(1)
    )


def _take(
    connection: Connection, job: Job, owner: str, now: float, until: float, interruptions: int, due: float
) -> Job:
    attempt = job.attempt + (job.status is JobStatus.QUEUED)
    lapsed = "" if job.status is JobStatus.QUEUED else ", after its lease had lapsed"
    return move(
        connection,
        job,
        Action.CLAIM,
        now,
        f"A worker took the job{lapsed} (attempt {attempt} of {job.max_attempts}).",
        data={"owner": owner, "fence": job.fence + 1},
        fence=job.fence + 1,
        attempt=attempt,
        interruptions=interruptions,
        not_before=due,
        claimed_at=now,
        lease_owner=owner,
        lease_until=until,
        started_at=job.started_at if job.started_at is not None else now,
    )


def _used_up(job: Job, interruptions: int, now: float) -> JobError | None:
    """Why a job may not go on, whatever its worker did."""
    again = f"POST /jobs/{job.id}/retry goes on from its newest checkpoint."
    if ran_s(job, now) >= job.max_run_time_s:
        message = f"The job has run for the {job.max_run_time_s:g} s that it may. {again} Its time then counts from 0."
        return JobError(OUT_OF_TIME, message, retryable=True)
    if interruptions > job.max_interruptions:
        message = f"The job was interrupted {interruptions} times; see its events. {again}"
        return JobError(INTERRUPTED, message, retryable=True)
    return None


def _exhaust(connection: Connection, job: Job, error: JobError, now: float, interruptions: int) -> Job:
    return move(
        connection,
        job,
        Action.EXHAUST,
        now,
        error.message,
        level=Level.ERROR,
        data={"error": asdict(error)},
        error=error,
        interruptions=interruptions,
    )


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
        version_sql.locked_alias(connection, promotion.alias)  # aliases before versions, as everywhere
    version_sql.register(connection, version, now, job_id=job.id, files=files)
    if promotion is not None:
        version_sql.move_alias(connection, promotion, version.id, now, job_id=job.id)


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
