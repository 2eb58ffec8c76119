"""What a job would take: steps by its configuration, time by the pace of an earlier job like it."""

from app.errors import InvalidRequest
from app.schemas.finetune import MAX_NUMBER, Estimate
from app.store import Store
from app.store.assets import Dataset, DatasetStatus
from app.store.records import Job, NewJob
from app.store.specs import FinetuneJob, parse_finetune
from app.store.states import JobKind, JobStatus

_LIKE = (
    "base", "teacher", "objective", "trainable", "batch_size", "micro_batch_size", "sds_batch_size", "gradient",
    "negatives", "negatives_count", "precision", "teacher_precision",
)  # fmt: skip
"""Options that a step's time depends on."""
_LOOKED_AT = 50


def steps_of(job: FinetuneJob, training: Dataset) -> int | None:
    """How many steps a job has; None while its data are still being checked.

    Raises: InvalidRequest where the batch is larger than the data, or the steps are beyond counting.
    """
    config = job.options
    usable = _usable(training)
    if usable is None:
        return config.steps
    if config.batch_size > usable:
        raise InvalidRequest(
            f"batch_size is {config.batch_size}, and the training data have {usable} usable samples; lower it.",
            param="hyperparameters.batch_size",
        )
    if config.steps is not None:
        return config.steps
    assert config.epochs is not None
    steps = max(1, round(config.epochs * (usable // config.batch_size)))  # as models.training.run has it
    if steps > MAX_NUMBER:
        raise InvalidRequest(f"These are {steps} steps; lower the epochs.", param="hyperparameters.epochs")
    return steps


def estimate(store: Store, new: NewJob) -> Estimate:
    """Look at the store. Raises StoreUnavailable."""
    ahead = sum(store.jobs.count(status) for status in (JobStatus.QUEUED, JobStatus.RUNNING))
    steps, images, seconds, like = None, None, None, None
    if new.kind is JobKind.FINETUNE:
        job = parse_finetune(new.config or {})
        steps = steps_of(job, store.datasets.get(job.training_data))
        images = None if steps is None else steps * job.options.batch_size
        like = None if steps is None else _like(store, new)
        if like is not None and steps is not None:
            seconds = _pace_s(like) * steps
    return Estimate(
        steps=steps,
        images=images,
        seconds=seconds,
        based_on=None if like is None else like.id,
        jobs_ahead=ahead,
    )


def _usable(training: Dataset) -> int | None:
    """How many samples there are to train on, once that is known."""
    usable = (training.counts or {}).get("usable") if training.status is DatasetStatus.READY else None
    return usable if isinstance(usable, int) else None


def _like(store: Store, new: NewJob) -> Job | None:
    """The newest job with the same costly options that was begun once and has succeeded."""
    config = new.config or {}
    page = store.jobs.list(kind=new.kind, status=JobStatus.SUCCEEDED, limit=_LOOKED_AT)
    for job in page.items:
        earlier = job.config or {}
        if job.fence == 1 and _steps(job) and all(earlier.get(name) == config.get(name) for name in _LIKE):
            return job
    return None


def _pace_s(job: Job) -> float:
    """Seconds a step, with what came before the first and after the last."""
    assert job.started_at is not None
    assert job.finished_at is not None
    return (job.finished_at - job.started_at) / _steps(job)


def _steps(job: Job) -> int:
    steps = (job.result or {}).get("steps")
    return steps if isinstance(steps, int) else 0
