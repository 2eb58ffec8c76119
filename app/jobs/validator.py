"""Everything about a job that can be checked before a worker takes it."""

from collections.abc import Callable
from functools import partial
from typing import Any

from sds_clip.app.errors import (
    AmbiguousName,
    DatasetFormat,
    InvalidConfiguration,
    InvalidRequest,
    KeyLimitReached,
    TooManyJobs,
    UnknownRecord,
    UnusableRecord,
)
from sds_clip.app.jobs.job_limits import check_limits, steps_of
from sds_clip.app.jobs.model_resolver import ModelResolver
from sds_clip.app.keys import Caller
from sds_clip.app.schemas.datasets import PAIRS
from sds_clip.app.schemas.evaluate import EvaluateSpec
from sds_clip.app.schemas.finetune import FinetuneSpec, Hyperparameters
from sds_clip.app.settings import Settings
from sds_clip.app.store import SeenBy, Workspace
from sds_clip.app.store.alias_names import check_alias
from sds_clip.app.store.names import is_id
from sds_clip.app.store.records import Dataset, DatasetStatus, NewJob
from sds_clip.app.store.states import OPEN, JobKind
from sds_clip.models.checkpoints.load import network_of, network_without_numbers
from sds_clip.models.checkpoints.references import is_version, parse
from sds_clip.models.clip.lora import attach
from sds_clip.models.clip.student import StudentError
from sds_clip.models.errors import CheckpointError

_RETRY_AFTER_S = 60


class JobValidator:
    """Checks specs against what their caller sees, and the limits. Its methods block, so call them in a thread.

    Raises: InvalidRequest (including ModelNotAllowed, UnusableRecord and UnusableTeacher), Forbidden, Overloaded,
    DiskReserve, StoreUnavailable.
    """

    def __init__(
        self,
        seen_by: SeenBy,
        models: ModelResolver,
        settings: Settings,
        check_disk: Callable[[], None],
    ) -> None:
        self._seen_by = seen_by
        self._models = models
        self._settings = settings
        self._check_disk = check_disk

    def check(self, spec: FinetuneSpec | EvaluateSpec, caller: Caller) -> FinetuneSpec | EvaluateSpec:
        """Check a spec and return it with names resolved, so that the worker uses what the caller saw."""
        store = self._seen_by(caller.sees)
        if isinstance(spec, FinetuneSpec):
            self.check_promotion(caller, spec.promote, spec.alias)
            resolved: FinetuneSpec | EvaluateSpec = self._check_finetune(store, caller, spec)
        else:
            resolved = self._check_evaluate(store, caller, spec)
        if spec.max_run_time_s is not None and spec.max_run_time_s > self._settings.max_run_time_s:
            raise InvalidRequest(
                f"A job may run for at most {self._settings.max_run_time_s:g} s on this server; lower max_run_time_s.",
                param="max_run_time_s",
            )
        self.check_room(caller)
        return resolved

    def new_job(self, spec: FinetuneSpec | EvaluateSpec, caller: Caller, key: str | None) -> NewJob:
        resolved = self.check(spec, caller)
        return NewJob(
            spec.kind,
            spec.as_sent(),
            config=resolved.as_row(),
            datasets=resolved.datasets,
            versions=resolved.versions,
            max_attempts=self._settings.max_attempts,
            max_run_time_s=spec.max_run_time_s or self._settings.max_run_time_s,
            priority=spec.priority,
            devices=spec.devices if isinstance(spec, FinetuneSpec) else 1,
            seed=spec.seed,
            suffix=spec.suffix,
            name=spec.name or "",
            metadata=spec.metadata,
            owner=caller.name,
            by_admin=caller.is_admin,
            idempotency_key=key,
        )

    def check_room(self, caller: Caller) -> None:
        """Raise Overloaded if too many jobs are open, and DiskReserve if the disk is full.

        Submissions at the same time may exceed the limits, by as many as the store has threads.
        """
        self._check_disk()
        jobs = self._seen_by(None).jobs
        most = self._settings.max_open_jobs_per_key
        if caller.name and jobs.count_open(caller.name) >= most:
            raise KeyLimitReached(
                "max_open_jobs_per_key",
                most,
                retry_after_s=_RETRY_AFTER_S,
                advice="cancel some jobs, or try again later",
            )
        open_jobs = sum(jobs.count(status) for status in OPEN)
        if open_jobs >= self._settings.max_open_jobs:
            raise TooManyJobs(
                f"The server has {open_jobs} unfinished jobs and accepts no more; try again later, or cancel "
                "some.",
                retry_after_s=_RETRY_AFTER_S,
            )

    def check_promotion(self, caller: Caller, promote: str, alias: str) -> None:
        """Raise Forbidden if a job shall move an alias that its caller may not move."""
        if promote == "never" or caller.is_admin:
            return
        found = self._seen_by(caller.sees).aliases.find(alias)
        if ("" if found is None else found.owner) != caller.name:
            caller.check("admin", f"promote: {promote}", param="promote")

    def _check_finetune(self, store: Workspace, caller: Caller, spec: FinetuneSpec) -> FinetuneSpec:
        check_alias(spec.alias)
        base = self._models.model(store, spec.base, param="base")
        if spec.hyperparameters.trainable == "lora":
            _check_lora(store, base, spec.hyperparameters)
        if spec.teacher is not None:
            self._models.check_teacher(spec.teacher, param="teacher")
        dataset = partial(_dataset, store, caller)
        training = dataset(spec.training_data, PAIRS, param="training_data")
        validation = None
        if spec.validation_data is not None:
            validation = dataset(spec.validation_data, PAIRS, param="validation_data").id
        evaluate = []
        for index, one in enumerate(spec.evaluate):
            found = dataset(one.data, one.benchmark, param="evaluate", index=index)
            evaluate.append(one.model_copy(update={"data": found.id}))
        check_limits(spec.hyperparameters, steps_of(spec, training))
        if spec.devices > 1:
            self._check_devices(spec.devices)
        return spec.resolved(
            max_bad_share=training.max_bad_share,
            base=base,
            training_data=training.id,
            validation_data=validation,
            evaluate=tuple(evaluate),
        )

    def _check_devices(self, devices: int) -> None:
        most = self._seen_by(None).workers.living_queues().get(JobKind.FINETUNE)
        if most is not None and devices > most:
            raise InvalidRequest(
                f"The job asks for {devices} devices, but no fine-tuning worker here has more than {most}; lower "
                "devices.",
                param="devices",
            )

    def _check_evaluate(self, store: Workspace, caller: Caller, spec: EvaluateSpec) -> EvaluateSpec:
        named = {
            param: self._models.model(store, name, param=param)
            for param, name in (("model", spec.model), ("baseline", spec.baseline))
            if name is not None
        }
        if spec.teacher is not None:
            self._models.check_teacher(spec.teacher, param="teacher")
        data = _dataset(store, caller, spec.data, spec.benchmark, param="data")
        return spec.resolved(max_bad_share=data.max_bad_share, data=data.id, **named)


def _check_lora(store: Workspace, base: str, options: Hyperparameters) -> None:
    """Raise InvalidConfiguration if the base has no place for the factors. What only a download shows is left out."""
    try:
        if is_version(base):
            network = network_without_numbers(store.versions.get(base).description["model"])
        else:
            network = network_of(parse(base))
    except (CheckpointError, KeyError):  # of the base, which the worker names
        return
    if network is None:
        return
    try:
        attach(network, targets=options.lora_targets, rank=options.lora_rank, scale=1.0, seed=0)
    except StudentError as error:
        raise InvalidConfiguration(str(error), param="hyperparameters") from error


def _dataset(store: Workspace, caller: Caller, given: str, format: str, **where: Any) -> Dataset:
    """A data set, by its id or its name, that is ready or still being checked. `where` is its place in the spec."""
    try:
        dataset = store.datasets.get(given if is_id(given) else store.datasets.named(given, caller.name))
    except AmbiguousName as error:
        raise UnusableRecord(error.message, **where) from None
    except UnknownRecord:
        why = f"There is no data set {given}; GET /datasets lists all data sets."
        raise UnusableRecord(why, **where) from None
    if dataset.status in (DatasetStatus.REJECTED, DatasetStatus.DELETED):
        raise UnusableRecord(f"The data set {given} is {dataset.status}; name one that is ready.", **where)
    if dataset.format != format:
        why = f"The data set {given} has the format {dataset.format}; name one with the format {format}."
        raise DatasetFormat(why, **where)
    return dataset
