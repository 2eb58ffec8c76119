"""Whose job is next: one of the owner that has used the slots of a kind least. Statements in a transaction."""

from collections import defaultdict
from collections.abc import Mapping

from sqlalchemy import (
    BigInteger,
    BindParameter,
    Connection,
    and_,
    bindparam,
    case,
    func,
    literal_column,
    null,
    or_,
    select,
    union_all,
)

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

_KIND: BindParameter[JobKind] = bindparam("kind")
_NOW: BindParameter[float] = bindparam("now")
_DEVICES: BindParameter[int] = bindparam("devices")
_MAY_BE_CLAIMED = and_(
    jobs.c.kind == _KIND,
    ELIGIBLE,
    jobs.c.format <= JOB_FORMAT,
    jobs.c.devices <= _DEVICES,
    jobs.c.not_before <= _NOW,
    or_(
        jobs.c.status == JobStatus.QUEUED,
        and_(jobs.c.status == JobStatus.RUNNING, jobs.c.lease_until <= _NOW),
    ),
)
FIRST_OF_OWNER = (
    select(jobs)
    .where(_MAY_BE_CLAIMED, jobs.c.owner == bindparam("owner"))
    .order_by(jobs.c.priority.desc(), jobs.c.created_at, jobs.c.id)
    .limit(1)
)
"""The first job of an owner that may be claimed: by priority, then by age."""
_UNTIL = case((jobs.c.lease_until < _NOW, jobs.c.lease_until), else_=_NOW)
_RAN_S = case((jobs.c.claimed_at < _UNTIL, _UNTIL - jobs.c.claimed_at), else_=0.0)
_OWNERS = union_all(
    # What may be claimed, what is at work, and what was used in each period: one statement, since each claim needs all.
    select(jobs.c.owner, func.min(jobs.c.created_at), literal_column("0.0"), literal_column("0"))
    .where(_MAY_BE_CLAIMED)
    .group_by(jobs.c.owner),
    select(jobs.c.owner, null(), func.sum(_RAN_S + _AT_WORK_S), bindparam("period", type_=BigInteger))
    .where(jobs.c.kind == _KIND, jobs.c.status.in_(sorted(HELD)))
    .group_by(jobs.c.owner),
    select(slot_use.c.owner, null(), slot_use.c.used_s, slot_use.c.period).where(slot_use.c.kind == _KIND),
)


def next_in_turn(
    connection: Connection, kind: JobKind, now: float, weights: Weights, devices: int, *, lock: bool = False
) -> Job | None:
    """The job that a slot of so many devices claims. With `lock`, it is locked, and jobs that others have locked are
    passed over.
    """
    oldest, use = _owners(connection, kind, now, weights, devices)
    first = FIRST_OF_OWNER.with_for_update(skip_locked=True) if lock else FIRST_OF_OWNER
    for owner in sorted(oldest, key=lambda owner: (use[owner], oldest[owner], owner)):
        job = Job.one_or_none(connection, first, kind=kind, now=now, owner=owner, devices=devices)
        if job is not None:
            return job
    return None


def is_turn_over(connection: Connection, job: Job, now: float, weights: Weights, devices: int) -> bool:
    """Whether a job of another owner would be next if this one stopped now."""
    oldest, use = _owners(connection, job.kind, now, weights, devices)
    own = use[job.owner] - _AT_WORK_S / weights.get(job.owner, 1.0)
    return any(use[owner] < own for owner in oldest if owner != job.owner)


def charge(connection: Connection, job: Job, used_s: float, now: float) -> None:
    """Count time that a job has held its slot as its owner's."""
    period = int(now // PERIOD_S)
    add_up(connection, slot_use.c.used_s, used_s, kind=job.kind, owner=job.owner, period=period)


def forget(connection: Connection, now: float) -> None:
    """Forget the use of long ago, also that of owners who have no jobs any more."""
    connection.execute(slot_use.delete().where(slot_use.c.period < now // PERIOD_S - _KEPT))


def _owners(
    connection: Connection, kind: JobKind, now: float, weights: Weights, devices: int
) -> tuple[dict[str, float], dict[str, float]]:
    """When the oldest job of each owner that waits was submitted, and the seconds that each has used, by its weight.

    What is past counts less, and jobs at work count too.
    """
    oldest, use = dict[str, float](), defaultdict[str, float](float)
    values = {"kind": kind, "now": now, "devices": devices, "period": int(now // PERIOD_S)}
    for owner, submitted, used_s, period in connection.execute(_OWNERS, values):
        if submitted is not None:
            oldest[owner] = submitted
        age_s = max(0.0, now - (period + 1) * PERIOD_S)
        use[owner] += used_s * 2.0 ** (-age_s / _HALF_LIFE_S) / weights.get(owner, 1.0)
    return oldest, use
