"""Whose job is next: one of the owner that has used the slots of a kind least. Statements in a transaction."""

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, Select, and_, case, func, or_, select

from sds_clip.app.store.database import add_up
from sds_clip.app.store.records import JOB_FORMAT, Job
from sds_clip.app.store.states import HELD, JobKind, JobStatus
from sds_clip.app.store.tables import ELIGIBLE, jobs, slot_use

PERIOD_S = 6 * 3600.0
"""Use is summed over periods of this length."""
_KEPT = 112
"""How many periods are kept: 28 days."""
_AT_WORK_S = 600.0
"""What a job at work counts beside its time. Else an owner with little use would take every free slot."""
_HALF_LIFE_S = 24 * 3600.0
"""After this time, use counts half. It is at least a period, and less than 28 days."""

Weights = Mapping[str, float]
"""An owner of weight 2 gets twice the time of one of weight 1, which is that of every owner not named."""
EQUAL: Weights = {}


def eligible(kind: JobKind, now: float, owner: str) -> Select[tuple[Any, ...]]:
    """The first job of an owner that may be claimed: by priority, then by age."""
    return (
        select(jobs)
        .where(*_may_be_claimed(kind, now), jobs.c.owner == owner)
        .order_by(jobs.c.priority.desc(), jobs.c.created_at, jobs.c.id)
        .limit(1)
    )


def next_in_turn(
    connection: Connection, kind: JobKind, now: float, weights: Weights, *, lock: bool = False
) -> Job | None:
    """The job to claim. With `lock`, it is locked, and jobs that others have locked are passed over."""
    for owner in _owners_in_turn(connection, kind, now, weights):
        first = eligible(kind, now, owner)
        job = Job.one_or_none(connection, first.with_for_update(skip_locked=True) if lock else first)
        if job is not None:
            return job
    return None


def is_turn_over(connection: Connection, job: Job, now: float, weights: Weights) -> bool:
    """Whether a job of another owner would be next if this one stopped now."""
    others = [owner for owner in _waiting(connection, job.kind, now) if owner != job.owner]
    if not others:
        return False
    use = _use(connection, job.kind, now, weights)
    own = use.get(job.owner, 0.0) - _AT_WORK_S / weights.get(job.owner, 1.0)
    return min(use.get(owner, 0.0) for owner in others) < own


def charge(connection: Connection, job: Job, used_s: float, now: float) -> None:
    """Count time that a job has held its slot as its owner's, and forget what is long past."""
    period = int(now // PERIOD_S)
    add_up(connection, slot_use.c.used_s, used_s, kind=job.kind, owner=job.owner, period=period)
    old = slot_use.c.kind == job.kind, slot_use.c.owner == job.owner, slot_use.c.period < period - _KEPT
    connection.execute(slot_use.delete().where(*old))


def _owners_in_turn(connection: Connection, kind: JobKind, now: float, weights: Weights) -> list[str]:
    """The owners whose jobs may be claimed. If two have used as much, the one whose job has waited longer is first."""
    waiting = _waiting(connection, kind, now)
    if len(waiting) < 2:
        return waiting
    use = _use(connection, kind, now, weights)
    return sorted(waiting, key=lambda owner: use.get(owner, 0.0))


def _waiting(connection: Connection, kind: JobKind, now: float) -> list[str]:
    query = select(jobs.c.owner).where(*_may_be_claimed(kind, now)).group_by(jobs.c.owner)
    return list(connection.execute(query.order_by(func.min(jobs.c.created_at), jobs.c.owner)).scalars())


def _use(connection: Connection, kind: JobKind, now: float, weights: Weights) -> dict[str, float]:
    """Seconds of each owner, by its weight. What is past counts less, and jobs at work count too."""
    use = defaultdict[str, float](float)
    past = select(slot_use.c.owner, slot_use.c.period, slot_use.c.used_s).where(slot_use.c.kind == kind)
    for owner, period, used_s in connection.execute(past):
        age_s = max(0.0, now - (period + 1) * PERIOD_S)
        use[owner] += used_s * 2.0 ** (-age_s / _HALF_LIFE_S)
    until = case((jobs.c.lease_until < now, jobs.c.lease_until), else_=now)
    at_work = select(jobs.c.owner, until - jobs.c.claimed_at).where(
        jobs.c.kind == kind, jobs.c.status.in_(sorted(HELD))
    )
    for owner, ran_s in connection.execute(at_work):
        use[owner] += max(0.0, ran_s or 0.0) + _AT_WORK_S
    return {owner: used_s / weights.get(owner, 1.0) for owner, used_s in use.items()}


def _may_be_claimed(kind: JobKind, now: float) -> tuple[Any, ...]:
    lapsed = and_(jobs.c.status == JobStatus.RUNNING, jobs.c.lease_until <= now)
    return (
        jobs.c.kind == kind,
        ELIGIBLE,
        jobs.c.format <= JOB_FORMAT,
        jobs.c.not_before <= now,
        or_(jobs.c.status == JobStatus.QUEUED, lapsed),
    )
