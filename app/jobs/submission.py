"""From a request to a job that can be inserted: all that can be checked before a worker has it, is checked here."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from app.errors import InvalidRequest, Overloaded
from app.jobs.estimate import steps_of
from app.jobs.limits import JobLimits
from app.jobs.named_models import NamedModels
from app.keys import Caller
from app.schemas.finetune import EvaluateRequest, FinetuneRequest
from app.store import Store
from app.store.alias_names import check_alias
from app.store.assets import PAIRS, Dataset, DatasetStatus
from app.store.errors import UnknownRecord, UnusableRecord
from app.store.records import Job, NewJob
from app.store.specs import EvaluateJob, FinetuneJob, parse_evaluate, parse_finetune
from app.store.states import OPEN, JobKind
from models.training.errors import ConfigError

_NOT_THE_JOB = {"dry_run"}
_RETRY_AFTER_S = 60


class Submissions:
    """Checks requests. Its methods use the store, so they belong into a thread.

    Each returns a job to be inserted, or the one that the same Idempotency-Key made before.

    Raises: InvalidRequest (ModelNotAllowed, UnusableRecord, IdempotencyMismatch among them), Forbidden,
    Overloaded, DiskReserve, StoreUnavailable.
    """

    def __init__(
        self,
        store: Store,
        models: NamedModels,
        *,
        max_open: int,
        limits: JobLimits,
        check_disk: Callable[[], None],
        max_attempts: int,
        max_interruptions: int,
        max_run_time_s: float,
    ) -> None:
        self._store = store
        self._models = models
        self._max_open = max_open
        self._limits = limits
        self._check_disk = check_disk
        self._max_attempts = max_attempts
        self._max_interruptions = max_interruptions
        self._max_run_time_s = max_run_time_s

    def finetune(self, request: FinetuneRequest, caller: Caller, key: str | None) -> NewJob | Job:
        """A fine-tuning job."""
        sent = request.model_dump(mode="json", exclude_unset=True, exclude=_NOT_THE_JOB)
        if (earlier := self._earlier(JobKind.FINETUNE, sent, caller, key)) is not None:
            return earlier
        if request.promote != "never":
            caller.check("admin", f"promote: {request.promote}", param="promote")
        check_alias(request.alias)
        base = self._models.model(request.base, param="base")
        teacher = None if request.teacher is None else self._models.teacher(request.teacher, param="teacher")
        training = self._dataset(request.training_data, PAIRS, param="training_data")
        job = _finetune_job(request, base.name, teacher, training)
        if job.validation_data is not None:
            self._dataset(job.validation_data, PAIRS, param="validation_data")
        for index, evaluation in enumerate(job.evaluate):
            self._dataset(evaluation.data, evaluation.benchmark, param="evaluate", index=index)
        self._limits.check(job.options, steps_of(job, training))
        limits = self._limits_of(request)
        self.check_room()
        return NewJob(
            JobKind.FINETUNE,
            sent,
            config=job.as_json(),
            datasets=job.datasets,
            versions=() if base.version is None else (base.version,),
            **limits,
            seed=request.seed,
            suffix=request.suffix,
            metadata=request.metadata,
            owner=caller.name,
            idempotency_key=key,
        )

    def evaluate(self, request: EvaluateRequest, caller: Caller, key: str | None) -> NewJob | Job:
        """An evaluation job."""
        sent = request.model_dump(mode="json", exclude_unset=True, exclude=_NOT_THE_JOB)
        if (earlier := self._earlier(JobKind.EVALUATE, sent, caller, key)) is not None:
            return earlier
        named = {
            param: self._models.model(name, param=param)
            for param, name in (("model", request.model), ("baseline", request.baseline))
            if name is not None
        }
        if request.teacher is not None:
            self._models.teacher(request.teacher, param="teacher")
        data = self._dataset(request.data, request.benchmark, param="data")
        limits = self._limits_of(request)
        self.check_room()
        own = request.model_dump(include=set(EvaluateJob.model_fields))
        if "max_bad_share" not in request.model_fields_set:
            own["max_bad_share"] = data.max_bad_share
        with _as_invalid_request():
            job = parse_evaluate(own | {param: found.name for param, found in named.items()})
        return NewJob(
            JobKind.EVALUATE,
            sent,
            config=job.as_json(),
            datasets=job.datasets,
            versions=tuple({found.version for found in named.values() if found.version is not None}),
            **limits,
            seed=request.seed,
            suffix=request.suffix,
            metadata=request.metadata,
            owner=caller.name,
            idempotency_key=key,
        )

    def _earlier(self, kind: JobKind, sent: Mapping[str, Any], caller: Caller, key: str | None) -> Job | None:
        """Asked before anything is checked: what the request named may be gone by now, and the replay holds."""
        if key is None:
            return None
        return self._store.jobs.earlier(NewJob(kind, sent, owner=caller.name, idempotency_key=key))

    def _dataset(self, dataset_id: str, format: str, *, param: str, index: int | None = None) -> Dataset:
        """A data set that a job can use, or wait for."""
        try:
            dataset = self._store.datasets.get(dataset_id)
        except UnknownRecord:
            raise UnusableRecord(
                f"There is no data set {dataset_id}; GET /datasets lists them.", param=param, index=index
            ) from None
        if dataset.status in (DatasetStatus.REJECTED, DatasetStatus.DELETED):
            raise UnusableRecord(
                f"The data set {dataset_id} is {dataset.status}; name one that is ready.",
                param=param,
                index=index,
            )
        if dataset.format != format:
            raise InvalidRequest(
                f"The data set {dataset_id} has the format {dataset.format}; one of {format} is needed here.",
                code="dataset_format",
                param=param,
                index=index,
            )
        return dataset

    def _limits_of(self, request: FinetuneRequest | EvaluateRequest) -> dict[str, Any]:
        """What a job may use up before it fails: the operator's limits, or less running time."""
        asked_s = request.max_run_time_s
        if asked_s is not None and asked_s > self._max_run_time_s:
            raise InvalidRequest(
                f"A job may run for {self._max_run_time_s:g} s here; ask for less.", param="max_run_time_s"
            )
        return {
            "max_attempts": self._max_attempts,
            "max_interruptions": self._max_interruptions,
            "max_run_time_s": self._max_run_time_s if asked_s is None else asked_s,
        }

    def check_room(self) -> None:
        """Raise Overloaded where no more jobs are taken, and DiskReserve where the disk is full."""
        self._check_disk()
        open_jobs = sum(self._store.jobs.count(status) for status in OPEN)
        if open_jobs >= self._max_open:
            raise Overloaded(
                f"{open_jobs} jobs have not ended, and no more are taken; try again later, or cancel some.",
                code="too_many_jobs",
                retry_after_s=_RETRY_AFTER_S,
            )


def _finetune_job(request: FinetuneRequest, base: str, teacher: str | None, training: Dataset) -> FinetuneJob:
    """The job that a request describes; what a data set may lack is what its check allowed."""
    allowed = {"max_bad_share": training.max_bad_share}
    options: dict[str, Any] = allowed | request.hyperparameters.model_dump(exclude_unset=True)
    own = request.model_dump(
        include={
            "objective",
            "seed",
            "training_data",
            "validation_data",
            "evaluate",
            "promote",
            "alias",
            "thresholds",
        }
    )
    with _as_invalid_request():
        return parse_finetune({**options, **own, "base": base, "teacher": teacher})


@contextmanager
def _as_invalid_request() -> Iterator[None]:
    """Choices that do not go together are the caller's to change."""
    try:
        yield
    except ConfigError as error:
        raise InvalidRequest(str(error), code="invalid_configuration") from error
