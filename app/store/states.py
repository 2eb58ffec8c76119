"""The life of a job as one table of allowed transitions. This module is pure: it has no side effects.

    validating ─► queued ──► running ──► succeeded, failed
                   │  ▲ ▲       │ │
                   ▼  │ └───────┘ ▼        back to queued: its worker shut down or died, or its turn ended
                  paused ◄───── pausing

`retry` reopens a failed or cancelled job. The job becomes `validating`, and `queued` at once if its data are ready.
A job that no worker holds is cancelled at once, a held one by way of `cancelling`. Cancelling takes
precedence over every other end: whatever a worker reports after it, even success, makes the job `cancelled`.
"""

from collections.abc import Mapping
from enum import StrEnum


class JobKind(StrEnum):
    """What a job does. A slot takes the jobs of one kind only."""

    FINETUNE = "finetune"
    EVALUATE = "evaluate"
    CHECK = "check"
    """The check of a data set. Workers submit it (`sds_clip.app.store.datasets`), and each has a slot for it."""


class JobStatus(StrEnum):
    """The status of a job."""

    VALIDATING = "validating"
    QUEUED = "queued"
    RUNNING = "running"
    PAUSING = "pausing"
    PAUSED = "paused"
    CANCELLING = "cancelling"
    CANCELLED = "cancelled"
    SUCCEEDED = "succeeded"
    FAILED = "failed"


class Action(StrEnum):
    """What can happen to a job."""

    DATA_READY = "data_ready"
    """Every data set that the job needs has been checked and is usable."""
    DATA_REJECTED = "data_rejected"
    CLAIM = "claim"
    """A worker takes the job, from the queue or from a worker whose lease has ended."""
    RELEASE = "release"
    """Its worker has stopped at a checkpoint, because it shut down or was asked to pause or cancel."""
    YIELD = "yield"
    """Its worker has stopped at a checkpoint, because its turn was over and another owner's job waits."""
    SUSPEND = "suspend"
    """Its worker cannot continue until a person has acted, because the disk is full."""
    ABANDON = "abandon"
    """Its worker was asked to stop, and its lease has ended without an answer."""
    SUCCEED = "succeed"
    FAIL = "fail"
    EXHAUST = "exhaust"
    """The job is due again, but its interruptions or its running time are used up."""
    CANCEL = "cancel"
    PAUSE = "pause"
    RESUME = "resume"
    RETRY = "retry"
    """A person reopens a job that has failed or was cancelled."""


HELD = frozenset({JobStatus.RUNNING, JobStatus.PAUSING, JobStatus.CANCELLING})
"""A worker has a lease on the job, which may have ended."""

TERMINAL = frozenset({JobStatus.CANCELLED, JobStatus.SUCCEEDED, JobStatus.FAILED})
"""The job has ended. A failed or cancelled one can be retried."""

OPEN = frozenset(JobStatus) - TERMINAL
"""The job may still need its data sets and versions."""

TRANSITIONS: Mapping[tuple[JobStatus, Action], JobStatus] = {
    (JobStatus.VALIDATING, Action.DATA_READY): JobStatus.QUEUED,
    (JobStatus.VALIDATING, Action.DATA_REJECTED): JobStatus.FAILED,
    (JobStatus.VALIDATING, Action.CANCEL): JobStatus.CANCELLED,
    (JobStatus.QUEUED, Action.CLAIM): JobStatus.RUNNING,
    (JobStatus.QUEUED, Action.EXHAUST): JobStatus.FAILED,
    (JobStatus.QUEUED, Action.PAUSE): JobStatus.PAUSED,
    (JobStatus.QUEUED, Action.CANCEL): JobStatus.CANCELLED,
    (JobStatus.RUNNING, Action.CLAIM): JobStatus.RUNNING,
    (JobStatus.RUNNING, Action.RELEASE): JobStatus.QUEUED,
    (JobStatus.RUNNING, Action.YIELD): JobStatus.QUEUED,
    (JobStatus.RUNNING, Action.SUSPEND): JobStatus.PAUSED,
    (JobStatus.RUNNING, Action.SUCCEED): JobStatus.SUCCEEDED,
    (JobStatus.RUNNING, Action.FAIL): JobStatus.FAILED,
    (JobStatus.RUNNING, Action.EXHAUST): JobStatus.FAILED,
    (JobStatus.RUNNING, Action.PAUSE): JobStatus.PAUSING,
    (JobStatus.RUNNING, Action.CANCEL): JobStatus.CANCELLING,
    (JobStatus.PAUSING, Action.RELEASE): JobStatus.PAUSED,
    (JobStatus.PAUSING, Action.SUSPEND): JobStatus.PAUSED,
    (JobStatus.PAUSING, Action.ABANDON): JobStatus.PAUSED,
    (JobStatus.PAUSING, Action.SUCCEED): JobStatus.SUCCEEDED,
    (JobStatus.PAUSING, Action.FAIL): JobStatus.FAILED,
    (JobStatus.PAUSING, Action.CANCEL): JobStatus.CANCELLING,
    (JobStatus.PAUSED, Action.RESUME): JobStatus.QUEUED,
    (JobStatus.PAUSED, Action.CANCEL): JobStatus.CANCELLED,
    (JobStatus.CANCELLING, Action.RELEASE): JobStatus.CANCELLED,
    (JobStatus.CANCELLING, Action.SUSPEND): JobStatus.CANCELLED,
    (JobStatus.CANCELLING, Action.ABANDON): JobStatus.CANCELLED,
    (JobStatus.CANCELLING, Action.SUCCEED): JobStatus.CANCELLED,
    (JobStatus.CANCELLING, Action.FAIL): JobStatus.CANCELLED,
    (JobStatus.CANCELLED, Action.RETRY): JobStatus.VALIDATING,
    (JobStatus.FAILED, Action.RETRY): JobStatus.VALIDATING,
}

FULFILLED: Mapping[Action, frozenset[JobStatus]] = {
    Action.CANCEL: frozenset({JobStatus.CANCELLING, JobStatus.CANCELLED}),
    Action.PAUSE: frozenset({JobStatus.PAUSING, JobStatus.PAUSED}),
    Action.RESUME: frozenset({JobStatus.QUEUED, JobStatus.RUNNING}),
    Action.RETRY: frozenset({JobStatus.VALIDATING, JobStatus.QUEUED, JobStatus.RUNNING}),
}
"""The statuses in which a request is already fulfilled, so that repeating it is not an error."""


class TransitionRefused(ValueError):
    """The job's status does not allow the action."""

    def __init__(self, status: JobStatus, action: Action) -> None:
        super().__init__(f"a job that is {status} does not allow: {action}")


def after(status: JobStatus, action: Action) -> JobStatus:
    """The status that `action` leads to. Raises TransitionRefused if the table has no such entry."""
    try:
        return TRANSITIONS[status, action]
    except KeyError:
        raise TransitionRefused(status, action) from None
