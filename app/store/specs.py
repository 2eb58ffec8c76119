"""What a job is asked to do, as its row holds it: checked at submission, read again by the worker.

A row's `config` is flat: the options of a fine-tuning run (`models.training.config`) without its paths, beside what
only a job has: data sets by their ids, what to evaluate, and when to promote.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from models.evaluation.catalog import ALIASES, BENCHMARKS
from models.score_error import SCORE_ERROR, ErrorOf
from models.training.config import FinetuneConfig, parse_config
from models.training.errors import ConfigError

PLACES = frozenset({"data", "images", "val", "val_images", "caption_cache", "device"})
"""Options of a run that are the worker's to fill in: no caller names a path or a device."""

MAX_EVALUATIONS = 8
MAX_SOURCE_CHARS = 4096
"""Of the path of registered data."""

DatasetId = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$")]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
Reference = Annotated[str, Field(min_length=1, max_length=1024)]
Promote = Literal["never", "if_better", "always"]


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class Evaluation(_Request):
    """A benchmark that a fine-tuned model is measured on."""

    benchmark: str
    data: DatasetId

    @field_validator("benchmark")
    @classmethod
    def _known(cls, name: str) -> str:
        return known_benchmark(name)


class Thresholds(_Request):
    """When a model is better than the one that an alias points at."""

    max_p: Annotated[float, Field(gt=0, le=1)] = 0.05
    """Of McNemar's exact one-sided test on Winoground's GroupMatch: promoted only below it, and only where the group
    score is no lower."""
    max_loss: Annotated[float, Field(ge=0, le=1)] = 0.01
    """How much lower zero-shot accuracy (retrieval where none is measured) may be, as a share."""


class FinetuneJob(_Request):
    """A fine-tuning job. Build it with `parse_finetune`; `as_json` is what the row's `config` holds."""

    options: FinetuneConfig
    """The run's options; its places hold nothing that can be used before `training`."""
    training_data: DatasetId
    validation_data: DatasetId | None = None
    evaluate: Annotated[tuple[Evaluation, ...], Field(max_length=MAX_EVALUATIONS)] = ()
    promote: Promote = "never"
    alias: Name = "default"
    thresholds: Thresholds = Thresholds()

    @model_validator(mode="after")
    def _can_be_compared(self) -> Self:
        if self.promote != "if_better":
            return self
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
        return self

    @property
    def datasets(self) -> tuple[str, ...]:
        """The ids of all data sets that it needs."""
        named = [self.training_data, self.validation_data, *(one.data for one in self.evaluate)]
        return tuple(dict.fromkeys(name for name in named if name is not None))

    def training(self, **places: Any) -> FinetuneConfig:
        """The run's configuration, with its places (some of `PLACES`) filled in."""
        return self.options.model_copy(update=places)

    def as_json(self) -> dict[str, Any]:
        """The flat form, every default written out."""
        own: dict[str, Any] = json.loads(self.model_dump_json(exclude={"options"}))
        options: dict[str, Any] = json.loads(self.options.model_dump_json(exclude=set(PLACES)))
        return options | own


class EvaluateJob(_Request):
    """An evaluation job: a model, a version or an alias on a benchmark, alone or beside another."""

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
    order_seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    draws: Annotated[int, Field(ge=1, le=10_000)] = 32
    """Noise levels of the diffusion score."""
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
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
        """Whether an option is another than its default, which a row holds too."""
        return bool(getattr(self, name) != type(self).model_fields[name].default)

    @property
    def datasets(self) -> tuple[str, ...]:
        """The ids of all data sets that it needs."""
        return (self.data,)

    def as_json(self) -> dict[str, Any]:
        """What the row's `config` holds, every default written out."""
        content: dict[str, Any] = json.loads(self.model_dump_json())
        return content


def parse_finetune(values: Mapping[str, Any]) -> FinetuneJob:
    """Check the flat form of a fine-tuning job.

    Raises ConfigError that names each wrong option and what it may be.
    """
    own = {name: value for name, value in values.items() if name in FinetuneJob.model_fields}
    options = {name: value for name, value in values.items() if name not in own}
    refused = sorted(PLACES & options.keys())
    if refused:
        raise ConfigError(f"The configuration cannot be used: {refused[0]} is not for a job to say.")
    # A run cannot be without data; which folder that is, the worker says.
    checked = parse_config({**options, "data": Path(str(own.get("training_data", "missing")))})
    with _as_config_error():
        return FinetuneJob(options=checked, **own)


def parse_evaluate(values: Mapping[str, Any]) -> EvaluateJob:
    """Check an evaluation job. Raises ConfigError that names each wrong option and what it may be."""
    if values.get("scorer") != "diffusion":
        # Rows hold every default, and older ones another: with the scorer clip it has no meaning.
        values = {name: value for name, value in values.items() if name != "score_error"}
    with _as_config_error():
        return EvaluateJob(**values)


def known_benchmark(name: str) -> str:
    """A benchmark's own name, also for what others call it. Raises ValueError for none."""
    known = ALIASES.get(name, name)
    if known not in BENCHMARKS:
        raise ValueError(f"there is no benchmark {name!r}; there are {', '.join(BENCHMARKS)}")
    return known


@contextmanager
def _as_config_error() -> Iterator[None]:
    """Around building a request: pydantic's findings as one ConfigError."""
    try:
        yield
    except ValidationError as error:
        problems = "; ".join(_problem(detail["loc"], detail["msg"]) for detail in error.errors())
        raise ConfigError(f"The configuration cannot be used: {problems}.") from error


def _problem(location: tuple[int | str, ...], message: str) -> str:
    name = ".".join(str(part) for part in location)
    message = message.removeprefix("Value error, ")
    return f"{name}: {message[0].lower()}{message[1:]}" if name else message
