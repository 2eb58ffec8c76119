"""Jobs for workers: claim, renew, report, release, finish. The fence guards every effect."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, case, select, update

from sds_clip.app.store import alias_sql, job_events, version_sql
from sds_clip.app.store.claims import OUT_OF_TIME, back_off_s, exhaust, take, used_up
from sds_clip.app.store.part import Part
from sds_clip.app.store.records import Event, EventType, Job, JobError, Json, Lease, Level, Move, NewVersion
from sds_clip.app.store.shares import EQUAL, Weights, forget, is_turn_over, next_in_turn
from sds_clip.app.store.states import HELD, Action, JobKind, JobStatus
from sds_clip.app.store.tables import jobs
from sds_clip.app.store.transitions import held_job, leased_job, lost, move
from sds_clip.app.store.verdicts import give_up

RETRY_BASE_S = 5.0
_YIELDED = "Its turn was over: the job stopped at a checkpoint, because a job of another key waits."
_HELD = sorted(HELD)
_ABANDONED = (
    select(jobs)
    .where(jobs.c.status.in_([JobStatus.PAUSING, JobStatus.CANCELLING]))
    .order_by(jobs.c.kind, jobs.c.owner, jobs.c.id)  # the order in which their owners' use is locked
    .limit(100)
    .with_for_update(skip_locked=True)
)


class JobLeases(Part):
    """The workers' side of the jobs table. Each method is one short transaction.

    Until the lease expires, no other worker may take the job. The fence says whose effects count. If a worker is
    suspended until its lease has expired, it may continue unless another worker has claimed the job. In that
    case its reports have no effect.

    An attempt that ends under a living supervisor counts against `max_attempts`. A lease that lapses and a
    worker that shuts down are interruptions, and count against `max_interruptions`. When the job gets further
    than ever before, the count of attempts starts again.

    Methods that take a lease raise LeaseLost when the fence has moved or the job has ended, unless they say
    otherwise. LeaseLost after StoreUnavailable may mean that the first try took effect; in either case the
    worker has nothing more to do.
    """

    def claim(
        self,
        kind: JobKind,
        owner: str,
        ttl_s: float,
        *,
        weights: Weights = EQUAL,
        devices: int = 1,
        retry_base_s: float = RETRY_BASE_S,
    ) -> Job | None:
        """Claim the job of a kind whose turn it is: it is due, and queued, or running under a lapsed lease.

        It needs no more than `devices`.

        The owner that has used the slots least, by `weights`, comes first. Among its jobs, those of the highest
        priority do, and among these the oldest.

        Returns the job or None. The job is `running`, its fence is one higher, and its lease lasts `ttl_s`. A
        claim from the queue is another attempt. A lapsed lease is an interruption, and the attempt stays the
        same.

        A job that was interrupted before it reached a new step is next due after `retry_base_s`, doubled for
        every further interruption. A job that takes its machine down each time therefore does so every five
        minutes at most.

        Jobs met on the way that have used up their interruptions or running time become `failed`.
        """
        while True:
            with self._database.writing() as connection:
                now = self._clock()
                job = next_in_turn(connection, kind, now, weights, devices, lock=True)
                if job is None:
                    return None
                interruptions = job.interruptions + (job.status is JobStatus.RUNNING)
                if (error := used_up(job, interruptions, now)) is None:
                    due = now + back_off_s(retry_base_s, interruptions)
                    return take(connection, job, owner, now, now + ttl_s, interruptions, due)
                exhaust(connection, job, error, now, interruptions)

    def next_due(self, kind: JobKind, weights: Weights = EQUAL, devices: int = 1) -> Job | None:
        """The job that `claim` would take now. It is not changed."""
        with self._database.reading() as connection:
            return next_in_turn(connection, kind, self._clock(), weights, devices)

    def end_turn(self, lease: Lease, weights: Weights = EQUAL, devices: int = 1) -> bool:
        """End the turn of a running job if another owner's would be next. Its worker then has to `release` it.

        Returns whether the turn is over. Raises LeaseLost.
        """
        with self._database.writing() as connection:
            job, now = held_job(connection, lease), self._clock()
            if job.status is not JobStatus.RUNNING or not is_turn_over(
                connection, job, now, weights, devices
            ):
                return False
            connection.execute(_guarded(lease).values(turn_over_at=now))
        return True

    def forget_use(self) -> None:
        """Forget what owners have used so long ago that it hardly counts."""
        with self._database.writing() as connection:
            forget(connection, self._clock())

    def settle_abandoned(self) -> tuple[Job, ...]:
        """Pause or cancel jobs whose worker was asked to do so and whose lease ended without an answer.

        It is called every few seconds, by any number of processes.
        """
        with self._database.writing() as connection:
            now = self._clock()
            return tuple(
                move(
                    connection,
                    job,
                    Action.ABANDON,
                    now,
                    "The job's worker is gone.",
                    level=Level.WARNING,
                    interruptions=job.interruptions + 1,
                )
                for job in Job.all(connection, _ABANDONED.where(jobs.c.lease_until <= now))
            )

    def renew(self, lease: Lease, ttl_s: float) -> JobStatus | None:
        """Extend the lease to `ttl_s` from now. Returns None, which is false, if the lease is lost.

        Otherwise it returns what is asked of the worker: RUNNING to continue, PAUSING or CANCELLING to write
        a checkpoint and `release`.
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
        """Report how far the job is. The step of a resumed job goes back to its checkpoint's.

        `done` counts the steps done over all stages, if there are several. When the job gets further than ever
        before, the count of attempts starts again. A job therefore fails only if it dies at the same step each
        time.
        """
        done = step if done is None else done
        is_past = jobs.c.furthest_step < done
        with self._database.writing() as connection:
            told = _guarded(lease).values(
                stage=stage,
                step=step,
                steps=steps,
                estimated_finish=estimated_finish,
                furthest_step=case((is_past, done), else_=jobs.c.furthest_step),
                attempt=case((is_past, 1), else_=jobs.c.attempt),
                not_before=case((is_past, self._clock()), else_=jobs.c.not_before),
            )
            if connection.execute(told).rowcount != 1:
                raise lost(lease)

    def event(
        self,
        lease: Lease,
        message: str,
        *,
        level: Level = Level.INFO,
        data: Json | None = None,
    ) -> int:
        with self._database.writing() as connection:
            number = _next_number(connection, lease)
            event = Event(lease.job_id, number, self._clock(), EventType.MESSAGE, message, level, data)
            job_events.add(connection, event)
        return number

    def points(self, lease: Lease, points: Mapping[int, Mapping[str, float]]) -> int:
        """Record metrics by step in one transaction, each as an event and on the curve.

        Returns the number of the last event. A step that a resumed job repeats replaces what an earlier
        attempt recorded.
        """
        with self._database.writing() as connection:
            last = _next_number(connection, lease, count=len(points), step=max(points))
            job_events.add_points(connection, lease.job_id, last, self._clock(), points)
        return last

    def release(self, lease: Lease, message: str = "The job's worker stopped at a checkpoint.") -> Job:
        """Give up a job at a checkpoint, after a shutdown or because pausing or cancelling was requested.

        Returns the job. It is `queued`, which counts as an interruption unless its turn was over; or `paused`,
        which does not count as an attempt; or `cancelled`; or `failed` if its interruptions or its running time
        are used up. The end of its running time is not an interruption. Publish a wake-up after this if the job
        is queued.
        """
        with self._database.writing() as connection:
            job = held_job(connection, lease)
            now = self._clock()
            if job.status is JobStatus.CANCELLING:
                return move(connection, job, Action.RELEASE, now, message)
            runs = job.status is JobStatus.RUNNING
            yields = runs and job.turn_over_at is not None
            interruptions = job.interruptions + (runs and not yields)
            if runs and (error := used_up(job, interruptions, now)) is not None:
                if error.code == OUT_OF_TIME:  # the worker stopped it for this, so it is no interruption
                    interruptions = job.interruptions
                return exhaust(connection, job, error, now, interruptions)
            return move(
                connection,
                job,
                Action.YIELD if yields else Action.RELEASE,
                now,
                _YIELDED if yields else message,
                attempt=max(0, job.attempt - 1),
                interruptions=interruptions,
                not_before=now,
            )

    def suspend(self, lease: Lease, reason: JobError) -> Job:
        """Pause a job that cannot continue until a person has acted. Its checkpoints stay.

        Returns the job: `paused` with the reason, which its event also reports, and not counted as an
        attempt; or `cancelled` if that was requested.
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
        """End an attempt with an error.

        With `retry_in_s`, the job is queued again while it has attempts left.

        `done` is the last progress of the attempt. It is passed here because the attempt may have died before it
        called `progress`.

        Returns the job: `failed` with the error, or `queued`. If its worker was asked to cancel, the job is
        `cancelled`. If its worker was asked to pause, a job that would be queued again is `paused`. In all cases
        the event of the transition reports the error.
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
            moved = move(
                connection,
                job,
                action,
                now,
                error.message,
                level=Level.WARNING if again else Level.ERROR,
                data={"error": asdict(error)},
                **values,
            )
            give_up(connection, moved, now)
            return moved

    def succeed(
        self,
        lease: Lease,
        *,
        version: NewVersion | None = None,
        files: Path | None = None,
        result: Json | None = None,
        promotion: Move | None = None,
    ) -> Job:
        """End a job. Its version, its result and the move of the alias are recorded together, or not at all.

        Returns the job: `succeeded`; or `cancelled` if that was requested meanwhile, in which case there is
        no version. The same weights may already be registered, because training is deterministic. The job's
        result is then that version. `files` is where this process sees the version's folder. If the answer
        was lost, calling again with the same lease and version returns the same job.

        Raises, without changing anything: AliasMoved or AliasLocked if the alias was moved or locked since the
        promotion was decided; MissingScope if the promotion is limited to an owner who no longer has the alias;
        VersionGone if the files were removed; UnusableRecord if the version's base was deleted.
        """
        with self._database.writing() as connection:
            job = leased_job(connection, lease)
            made = None if version is None else version.id
            # First: the answer to an earlier call may have been lost, and a job that has succeeded is no longer held.
            if job.status is JobStatus.SUCCEEDED and job.result_version == made:
                return job
            if job.status not in HELD:
                raise lost(lease)
            now = self._clock()
            # Before the version is made: a cancelled job would commit it too, and the move of the alias.
            if job.status is JobStatus.CANCELLING:
                return move(
                    connection,
                    job,
                    Action.SUCCEED,
                    now,
                    "The job was cancelled when it was about to succeed.",
                )
            if version is not None:
                if promotion is not None:
                    alias_sql.find_held(connection, promotion.alias)  # always hold aliases before versions
                version_sql.register(connection, version, now, job_id=job.id, owner=job.owner, files=files)
                if promotion is not None:
                    alias_sql.promote(connection, promotion, version.id, now, job_id=job.id)
            return move(
                connection,
                job,
                Action.SUCCEED,
                now,
                "The job succeeded.",
                data={"version": made},
                result_version=made,
                result=result,
            )


def _guarded(lease: Lease) -> Any:
    return update(jobs).where(
        jobs.c.id == lease.job_id, jobs.c.fence == lease.fence, jobs.c.status.in_(_HELD)
    )


def _next_number(connection: Connection, lease: Lease, *, count: int = 1, **values: Any) -> int:
    """Reserve the next `count` event numbers in the job's row, which stays locked until the transaction ends.

    Returns the last of them.
    """
    statement = _guarded(lease).values(event_count=jobs.c.event_count + count, **values)
    number: int | None = connection.execute(statement.returning(jobs.c.event_count)).scalar_one_or_none()
    if number is None:
        raise lost(lease)
    return number
