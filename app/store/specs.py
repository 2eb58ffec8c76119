"""The spec of a job: the body of POST /finetune or /evaluate, its stored form, and what the worker reads.

A row's `config` is its spec with every default written out, so that a job means the same after an upgrade. It
contains the number of its format. `JobSpec.read` reads all formats:

    1   the spec as it is sent
    0   without a number: the hyperparameters of a fine-tuning job are beside its other fields
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from app.errors import InvalidConfiguration, InvalidRequest
from app.store.alias_names import ALIAS_PATTERN, DEFAULT
from app.store.states import JobKind
from models.errors import ConfigError
from models.evaluation.catalog import ALIASES, BENCHMARKS
from models.references import is_version
from models.score_error import SCORE_ERROR, ErrorOf
from models.training.config import (
    FinetuneConfig,
    Objective,
    Seed,
    TrainingOptions,
    check_combination,
    config_error,
)

FORMAT = 1

PATH_OPTIONS = frozenset({"data", "images", "val", "val_images", "caption_cache", "device"})
"""Options of a run that only the worker knows, because callers name no paths or devices."""

READING: Mapping[str, Any] = {
    "data_format": "auto",
    "image_key": "filepath",
    "caption_key": "title",
    "separator": None,
}
"""How pairs are read in every job. The check of a data set reads them the same way, so it must not change."""

PAIRS = "pairs"
FORMATS = (PAIRS, *BENCHMARKS)
"""The formats of data sets: pairs to train on, or what a benchmark reads."""

MAX_EVALUATIONS = 8
MAX_SOURCE_CHARS = 4096
"""The limit on the path of registered data."""
MAX_NUMBER = 10**9
"""Above the steps of any run that ends, and small enough for exact arithmetic."""

DatasetId = Annotated[
    str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$", examples=["ds_5f0c1a2b3c4d5e6f7a8b9c0d"])
]
Reference = Annotated[str, Field(min_length=1, max_length=1024)]
MetadataKey = Annotated[str, Field(min_length=1, max_length=64)]
MetadataValue = Annotated[str, Field(max_length=512)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class Hyperparameters(TrainingOptions):
    """How the model is fine-tuned; give either `steps` or `epochs`."""

    @field_validator("*")
    @classmethod
    def _is_sane(cls, value: Any) -> Any:
        if isinstance(value, int | float) and value > MAX_NUMBER:
            raise ValueError(f"must be {MAX_NUMBER} at most")
        return value


class Evaluation(_Part):
    """A benchmark that a fine-tuned model is measured on."""

    benchmark: str
    data: DatasetId

    @field_validator("benchmark")
    @classmethod
    def _known(cls, name: str) -> str:
        return known_benchmark(name)


class Thresholds(_Part):
    """When a model is better than the one that an alias points at."""

    max_p: Annotated[float, Field(gt=0, le=1)] = 0.05
    """Of McNemar's exact one-sided test on Winoground's GroupMatch: promoted only below it, and only where the group
    score is no lower."""
    max_loss: Annotated[float, Field(ge=0, le=1)] = 0.01
    """How much lower zero-shot accuracy (retrieval where none is measured) may be, as a share."""


class JobSpec(_Part):
    """What every job may be given. These four stay out of `config`: the row has columns for them, or needs none."""

    kind: ClassVar[JobKind]

    suffix: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,64}$")] | None = None
    """A word to know the job by."""
    metadata: Annotated[dict[MetadataKey, MetadataValue], Field(max_length=16)] = Field(default_factory=dict)
    """The caller's own notes."""
    max_run_time_s: Annotated[float, Field(gt=0)] | None = None
    """How long it may run, over all attempts; the operator's limit where it is not given."""
    dry_run: bool = False
    """Check everything and say what would be done, and do nothing."""

    def as_sent(self) -> dict[str, Any]:
        """The fields that the caller set. A replay with the same Idempotency-Key must send the same ones."""
        return self.model_dump(mode="json", exclude_unset=True, exclude={"dry_run"})

    def as_row(self) -> dict[str, Any]:
        return {"format": FORMAT, **self.model_dump(mode="json", exclude=set(JobSpec.model_fields))}

    def as_shown(self) -> dict[str, Any]:
        return self.upgraded(self.as_row())

    @classmethod
    def read(cls, config: Mapping[str, Any] | None) -> Self:
        """The spec in a row's `config`. Raises ConfigError."""
        if (config or {}).get("format", 0) > FORMAT:
            raise ConfigError("The job was accepted by a newer version of this program; update the worker.")
        try:
            return cls.model_validate(cls.upgraded(config))
        except ValidationError as error:
            raise config_error(error) from error
        except InvalidRequest as error:
            raise ConfigError(error.message) from error

    @classmethod
    def upgraded(cls, config: Mapping[str, Any] | None) -> dict[str, Any]:
        """A row's `config` in the current format, without the format's number. It is not validated."""
        return {name: value for name, value in (config or {}).items() if name != "format"}


class FinetuneSpec(JobSpec):
    """A fine-tuning job."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "base": "default",
                    "teacher": "demo",
                    "training_data": "ds_5f0c1a2b3c4d5e6f7a8b9c0d",
                    "objective": "sds-clip",
                    "hyperparameters": {"steps": 200, "lr": 0.0001},
                    "promote": "never",
                    "dry_run": True,
                }
            ]
        }
    )
    kind = JobKind.FINETUNE

    base: Reference = DEFAULT
    """A version, an alias, or a model that the operator allows."""
    teacher: Reference | None = None
    """A teacher that the operator allows; the objective `clip` needs none."""
    training_data: DatasetId
    """A data set of the format `pairs`."""
    validation_data: DatasetId | None = None
    """Another one, for the validation losses."""
    objective: Objective = "sds-clip"
    """`clip` is the control without a teacher."""
    hyperparameters: Hyperparameters = Field(default_factory=Hyperparameters)
    """Give either `steps` or `epochs`."""
    evaluate: Annotated[tuple[Evaluation, ...], Field(max_length=MAX_EVALUATIONS)] = ()
    """Benchmarks to measure the new version on."""
    promote: Literal["never", "if_better", "always"] = "never"
    """Whether the alias moves to the new version; for anything but `never` the key needs the scope admin. `if_better`
    needs a Winoground set in `evaluate`, and zero-shot, retrieval or validation data: it moves where, on every
    Winoground set, GroupMatch is significantly higher and the group score no lower, and nothing else fell by more than
    `thresholds` allow. The job's result names what lies under chance."""
    alias: Annotated[str, Field(pattern=ALIAS_PATTERN)] = DEFAULT
    """The name that `promote` moves."""
    thresholds: Thresholds = Field(default_factory=Thresholds)
    """What `if_better` means."""
    seed: Seed = 0

    @model_validator(mode="after")
    def _belongs_together(self) -> Self:
        try:
            check_combination(self.objective, self.teacher, self.hyperparameters)
            self._check_promotion()
        except ValueError as error:
            # Pydantic passes this error on unchanged. It would turn a ValueError into an error of a field.
            raise InvalidConfiguration(f"The configuration cannot be used: {error}.") from error
        return self

    def _check_promotion(self) -> None:
        if self.promote != "if_better":
            return
        measured = {evaluation.benchmark for evaluation in self.evaluate}
        if "winoground" not in measured:
            raise ValueError(
                "promote: if_better needs a winoground data set in `evaluate`, to compare GroupMatch on"
            )
        if not measured & {"zero-shot", "retrieval"} and self.validation_data is None:
            raise ValueError(
                "promote: if_better needs zero-shot or retrieval in `evaluate`, or validation_data, to see that "
                "nothing else got worse"
            )

    @property
    def datasets(self) -> tuple[str, ...]:
        named = [self.training_data, self.validation_data, *(one.data for one in self.evaluate)]
        return tuple(dict.fromkeys(name for name in named if name is not None))

    @property
    def versions(self) -> tuple[str, ...]:
        """The ids of the registered versions that the job needs.

        References and aliases are not among them.
        """
        return (self.base,) if is_version(self.base) else ()

    def resolved(self, *, base: str, max_bad_share: float) -> Self:
        """Replace the base's name by what it means now, and an unset `max_bad_share` by the check's."""
        options = self.hyperparameters
        if "max_bad_share" not in options.model_fields_set:
            options = options.model_copy(update={"max_bad_share": max_bad_share})
        return self.model_copy(update={"base": base, "hyperparameters": options})

    def config(self, **chosen: Any) -> FinetuneConfig:
        """The run's configuration. The worker chooses `PATH_OPTIONS` and a base that can be loaded."""
        own = {name: getattr(self, name) for name in ("base", "teacher", "objective", "seed")}
        return FinetuneConfig(**{**READING, **self.hyperparameters.model_dump(), **own, **chosen})

    def as_shown(self) -> dict[str, Any]:
        """The spec as a dry run shows it: every option of the run, and the fields of the job."""
        config = self.config(data=Path(self.training_data))
        own = super().as_shown()
        return config.model_dump(mode="json", exclude=set(PATH_OPTIONS)) | {
            name: value for name, value in own.items() if name != "hyperparameters"
        }

    def recorded(self, config: FinetuneConfig) -> FinetuneConfig:
        """A run's configuration as it is recorded, with ids in place of this machine's paths."""
        named: dict[str, Any] = {
            "base": self.base,
            "data": Path(self.training_data),
            "images": None,
            "val": None if self.validation_data is None else Path(self.validation_data),
            "val_images": None,
        }
        return config.model_copy(update=named)

    @classmethod
    def upgraded(cls, config: Mapping[str, Any] | None) -> dict[str, Any]:
        values = super().upgraded(config)
        if "format" in (config or {}):
            return values
        options = {name: values.pop(name) for name in list(values) if name in Hyperparameters.model_fields}
        own = {name: value for name, value in values.items() if name not in {*READING, "workers"}}
        return {**own, "hyperparameters": options}


class EvaluateSpec(JobSpec):
    """An evaluation job: a model, a version or an alias on a benchmark, alone or beside another."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "model": "default",
                    "benchmark": "winoground",
                    "data": "ds_5f0c1a2b3c4d5e6f7a8b9c0d",
                    "baseline": "demo",
                    "dry_run": True,
                }
            ]
        }
    )
    kind = JobKind.EVALUATE

    benchmark: str
    data: DatasetId
    model: Reference | None = None
    """Of the scorer `clip`. The scorer `diffusion` measures the teacher; a model beside it is not used."""
    scorer: Literal["clip", "diffusion"] = "clip"
    teacher: Reference | None = None
    """Of the scorer `diffusion`, which measures it."""
    baseline: Reference | None = None
    classes: Literal["imagenet"] | None = None
    """Of zero-shot: the names of the classes; the data's own where it is not given."""
    templates: Literal["photo", "simple", "openai"] | None = None
    order_seed: Seed = 0
    draws: Annotated[int, Field(ge=1, le=10_000)] = 32
    """Noise levels of the diffusion score."""
    seed: Seed = 0
    score_error: ErrorOf = SCORE_ERROR
    """Whose error the diffusion score is: the noise's, or the velocity's, which counts high noise for more."""
    precision: Literal["auto", "float32", "bfloat16", "float16"] = "float32"
    batch_size: Annotated[int, Field(ge=1, le=4096)] = 32
    max_bad_share: Annotated[float, Field(ge=0, le=1)] = 0.0

    @field_validator("benchmark")
    @classmethod
    def _known(cls, name: str) -> str:
        return known_benchmark(name)

    @model_validator(mode="after")
    def _belongs_together(self) -> Self:
        if self.scorer not in BENCHMARKS[self.benchmark].scorers:
            raise ValueError(f"{self.benchmark} cannot be measured with the {self.scorer} score")
        for name in ("classes", "templates", "order_seed"):
            if self._is_given(name) and name not in BENCHMARKS[self.benchmark].options:
                raise ValueError(f"{name} does not belong to {self.benchmark}")
        for name in ("draws", "seed", "score_error"):
            if self._is_given(name) and self.scorer == "clip":
                raise ValueError(f"{name} belongs to the scorer diffusion")
        if self.scorer == "clip" and self.model is None:
            raise ValueError("the scorer clip needs a model")
        if self.scorer == "clip" and self.teacher is not None:
            raise ValueError("teacher belongs to the scorer diffusion")
        if self.scorer == "diffusion" and self.teacher is None:
            raise ValueError("the scorer diffusion needs a teacher")
        return self

    def _is_given(self, name: str) -> bool:
        """Whether an option differs from its default.

        A row contains defaults too, so being set proves nothing.
        """
        return bool(getattr(self, name) != type(self).model_fields[name].default)

    @property
    def datasets(self) -> tuple[str, ...]:
        return (self.data,)

    @property
    def versions(self) -> tuple[str, ...]:
        return tuple({name for name in (self.model, self.baseline) if name is not None and is_version(name)})

    def resolved(self, *, max_bad_share: float, **models: str) -> Self:
        """Replace the models' names by what they mean now, and an unset `max_bad_share` by the check's."""
        given = "max_bad_share" in self.model_fields_set
        return self.model_copy(update=models if given else {**models, "max_bad_share": max_bad_share})

    @classmethod
    def upgraded(cls, config: Mapping[str, Any] | None) -> dict[str, Any]:
        values = super().upgraded(config)
        if "format" not in (config or {}) and values.get("scorer") != "diffusion":
            # The scorer clip does not use it, and its default was different in format 0.
            values.pop("score_error", None)
        return values


def known_benchmark(name: str) -> str:
    """Resolve a benchmark's name or alias to its own name. Raises ValueError for an unknown one."""
    known = ALIASES.get(name, name)
    if known not in BENCHMARKS:
        raise ValueError(f"there is no benchmark {name!r}; there are {', '.join(BENCHMARKS)}")
    return known


def known_format(name: str) -> str:
    """Resolve a data set format's name or alias to its own name. Raises ValueError for an unknown one."""
    if name == PAIRS:
        return name
    try:
        return known_benchmark(name)
    except ValueError:
        raise ValueError(f"there is no such format; there are {', '.join(FORMATS)}") from None
