"""The number of steps of a fine-tuning job, and the operator's limits on a job."""

from sds_clip.app.errors import InvalidRequest, OverLimit
from sds_clip.app.schemas.finetune import MAX_NUMBER, FinetuneSpec
from sds_clip.app.store.records import Dataset, DatasetStatus
from sds_clip.models.training.config import TrainingOptions

MAX_STEPS = 10_000_000
MAX_LOG_POINTS = 500_000
"""All points of a job's curves are kept, in the database and in the log that stays with the version."""
MAX_KEEP_CHECKPOINTS = 20


def check_limits(options: TrainingOptions, steps: int | None) -> None:
    """Raise InvalidRequest for a value over a limit.

    `steps` is the number of steps of the run, if it is known.
    """
    if options.keep_checkpoints > MAX_KEEP_CHECKPOINTS:
        raise _over("keep_checkpoints", f"{options.keep_checkpoints} checkpoints", MAX_KEEP_CHECKPOINTS)
    steps = steps or options.steps
    if steps is None:
        return
    if steps > MAX_STEPS:
        raise _over("steps" if options.steps is not None else "epochs", f"{steps} steps", MAX_STEPS)
    points = -(-steps // options.log_every)
    if points > MAX_LOG_POINTS:
        raise _over("log_every", f"{points} logged points", MAX_LOG_POINTS, change="raise")


def steps_of(spec: FinetuneSpec, training: Dataset) -> int | None:
    """The number of steps of a job, or None while its data are still being checked.

    Raises: InvalidRequest if the batch is larger than the data, or the number of steps is too large to store.
    """
    options = spec.hyperparameters
    usable = _usable(training)
    if usable is None:
        return options.steps
    if options.batch_size > usable:
        raise InvalidRequest(
            f"batch_size is {options.batch_size}, but the training data have only {usable} usable samples; lower "
            "it.",
            param="hyperparameters.batch_size",
        )
    steps = options.steps_over(usable)
    if steps > MAX_NUMBER:
        raise InvalidRequest(f"epochs would take {steps} steps; lower it.", param="hyperparameters.epochs")
    return steps


def _usable(training: Dataset) -> int | None:
    usable = (training.counts or {}).get("usable") if training.status is DatasetStatus.READY else None
    return usable if isinstance(usable, int) else None


def _over(option: str, asked: str, most: int, *, change: str = "lower") -> InvalidRequest:
    return OverLimit(
        f"{option} asks for {asked}, but this server allows at most {most}; {change} it.",
        param=f"hyperparameters.{option}",
    )
