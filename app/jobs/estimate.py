"""Estimates a job: its steps from its spec, its time and memory from a similar earlier job."""

from typing import Any

from sds_clip.app.jobs.job_limits import steps_of
from sds_clip.app.schemas.evaluate import EvaluateSpec
from sds_clip.app.schemas.finetune import FinetuneSpec
from sds_clip.app.schemas.jobs import Estimate
from sds_clip.app.store import Workspace
from sds_clip.app.store.records import Job
from sds_clip.app.store.states import JobKind, JobStatus

_LIKE = ("base", "teacher", "objective")
_LIKE_HYPERPARAMETERS = (
    "trainable", "lora_rank", "lora_targets", "batch_size", "micro_batch_size", "sds_batch_size", "gradient",
    "negatives", "negatives_count", "score_by", "precision", "teacher_precision",
)  # fmt: skip
"""The options that determine how long a step takes."""
_LOOKED_AT = 50


def estimate(store: Workspace, spec: FinetuneSpec | EvaluateSpec) -> Estimate:
    """Estimate from what the caller sees, and from the number of all jobs of its kind. Raises StoreUnavailable."""
    ahead = sum(store.jobs.count(status, spec.kind) for status in (JobStatus.QUEUED, JobStatus.RUNNING))
    steps = None
    if isinstance(spec, FinetuneSpec):
        steps = steps_of(spec, store.datasets.get(spec.training_data))
    if not isinstance(spec, FinetuneSpec) or steps is None:
        return Estimate(
            steps=None, images=None, seconds=None, memory_bytes=None, based_on=None, jobs_ahead=ahead
        )
    like = _like(store, spec)
    return Estimate(
        steps=steps,
        images=steps * spec.hyperparameters.batch_size,
        seconds=None if like is None else _pace_s(like) * steps,
        memory_bytes=None if like is None else _peak_bytes(store, like),
        based_on=None if like is None else like.id,
        jobs_ahead=ahead,
    )


def _like(store: Workspace, spec: FinetuneSpec) -> Job | None:
    """The newest job with the same costly options that succeeded at its first start."""
    wanted = _costly(spec.as_row())
    page = store.jobs.list(kind=JobKind.FINETUNE, status=JobStatus.SUCCEEDED, limit=_LOOKED_AT)
    for job in page.items:
        if job.fence == 1 and _steps(job) and _costly(FinetuneSpec.upgraded(job.config)) == wanted:
            return job
    return None


def _costly(config: dict[str, Any]) -> list[Any]:
    options = config.get("hyperparameters", {})
    return [config.get(name) for name in _LIKE] + [options.get(name) for name in _LIKE_HYPERPARAMETERS]


def _pace_s(job: Job) -> float:
    """Seconds a step, including the time before the first and after the last step."""
    assert job.started_at is not None
    assert job.finished_at is not None
    return (job.finished_at - job.started_at) / _steps(job)


def _peak_bytes(store: Workspace, job: Job) -> float | None:
    newest = store.events.latest_metrics(job.id)
    peak_mib = None if newest is None else newest.values.get("peak_memory_mib")
    return None if peak_mib is None else peak_mib * 2**20


def _steps(job: Job) -> int:
    steps = (job.result or {}).get("steps")
    return steps if isinstance(steps, int) else 0
