"""POST /finetune."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import ConfigDict, Field, field_validator, model_validator

from sds_clip.app.errors import InvalidConfiguration
from sds_clip.app.schemas.common import example
from sds_clip.app.schemas.specs import Benchmark, DatasetId, JobSpec, Part, Reference
from sds_clip.app.store.alias_names import ALIAS_PATTERN, DEFAULT
from sds_clip.app.store.states import JobKind
from sds_clip.models.checkpoints.references import is_version
from sds_clip.models.choices import Objective
from sds_clip.models.training.config import (
    FinetuneConfig,
    Seed,
    TrainingOptions,
    check_combination,
    check_split,
    meant_before,
    needs_teacher,
    sections,
    teacher_weight,
)

PATH_OPTIONS = frozenset({"data", "images", "val", "val_images", "labels", "caption_cache", "device"})
"""Options of a run that only the worker knows, because callers name no paths or devices."""

READING: Mapping[str, Any] = {
    "data_format": "auto",
    "image_key": "filepath",
    "caption_key": "title",
    "separator": None,
}
"""How pairs are read in every job. The check of a data set reads them the same way, so it must not change."""

MAX_EVALUATIONS = 8
MAX_NUMBER = 10**9
"""Above the steps of any run that ends, and small enough for exact arithmetic."""


def _with_sections(schema: dict[str, Any]) -> None:
    """Say of each property in which section a form or a list shows it."""
    section_of = sections(TrainingOptions)
    for name, described in schema["properties"].items():
        described["x-section"] = section_of[name]


class Hyperparameters(TrainingOptions):
    """How the model is fine-tuned. Give either `steps` or `epochs`."""

    model_config = ConfigDict(json_schema_extra=_with_sections)

    @field_validator("*")
    @classmethod
    def _is_sane(cls, value: Any) -> Any:
        if isinstance(value, int | float) and value > MAX_NUMBER:
            raise ValueError(f"The number must be at most {MAX_NUMBER}")
        return value


class Evaluation(Part):
    """A benchmark on which the fine-tuned model is measured."""

    benchmark: Benchmark
    data: DatasetId

    @property
    def name(self) -> str:
        """Its name in a job's result, and that of the file of its items among the job's files."""
        return f"{self.benchmark} ({self.data})"

    @property
    def baseline(self) -> str:
        """The name of the file of the same items of the model that the job was compared with."""
        return f"baseline of {self.name}"


class Thresholds(Part):
    """When a new version counts as better than the one that the alias points to."""

    max_p: Annotated[float, Field(gt=0, le=1)] = 0.05
    """The p-value of McNemar's exact one-sided test on Winoground's GroupMatch must be below this number."""
    max_loss: Annotated[float, Field(ge=0, le=1)] = 0.01
    """Zero-shot accuracy, or the figure that replaces it, may fall by at most this share."""


class FinetuneSpec(JobSpec):
    """A fine-tuning job."""

    model_config = example(
        {
            "base": "default",
            "teacher": "demo",
            "training_data": "ds_5f0c1a2b3c4d5e6f7a8b9c0d",
            "objective": "sds-clip",
            "hyperparameters": {"steps": 200, "lr": 0.0001},
            "promote": "never",
            "dry_run": True,
        }
    )
    kind = JobKind.FINETUNE

    base: Reference = DEFAULT
    """The model to fine-tune: a version's id or its beginning, an alias, or a model that the operator allows."""
    teacher: Reference | None = None
    """The teacher to distil, which must be one that the operator allows. The objective `clip` needs none."""
    training_data: DatasetId
    """The data set to train on. Its format must be `pairs`."""
    validation_data: DatasetId | None = None
    """Another data set of the format `pairs`, on which the validation losses are measured."""
    objective: Objective = "sds-clip"
    """What is trained. `sds-clip` adds L_SDS to CLIP's loss: the teacher's error when it denoises the mapped image
    embedding under its caption. `condition` adds L_condition: the teacher's error when the image embedding takes the
    place of the caption. `noise-contrast` adds L_noise: an image's own embedding must lead the teacher to the truth,
    and away from what other images' embeddings lead to. `score` distils the teacher's choice among captions. `clip` is
    the control without a teacher: CLIP's loss alone."""
    hyperparameters: Hyperparameters = Field(default_factory=Hyperparameters)
    """The options of the training. Give either `steps` or `epochs`."""
    evaluate: Annotated[tuple[Evaluation, ...], Field(max_length=MAX_EVALUATIONS)] = ()
    """The benchmarks on which the new version is measured."""
    promote: Literal["never", "if_better", "always"] = "never"
    """Whether the alias moves to the new version. Any value but `never` needs a key with the scope admin.

    `if_better` compares the new version with the version that the alias points to. If there is no such alias, it
    compares it with the base. The alias moves if both conditions hold. First, on every Winoground set of `evaluate`,
    GroupMatch is higher with a one-sided p below `thresholds.max_p`, and the group score is not lower. Second, on
    every zero-shot set, top-1 accuracy falls by at most `thresholds.max_loss`. If there is no zero-shot set, the mean
    recall@1 of both directions is compared instead: on every retrieval set or, if there is none, within the batches
    of `validation_data`. Other benchmarks are measured but do not decide. The job's result names the Winoground
    figures that are below chance."""
    alias: Annotated[str, Field(pattern=ALIAS_PATTERN)] = DEFAULT
    """The alias that `promote` moves."""
    thresholds: Thresholds = Field(default_factory=Thresholds)
    """The thresholds of `if_better`."""
    seed: Seed = 0
    devices: Annotated[int, Field(ge=1, le=64)] = 1
    """The number of devices of one worker that train together. Each takes its part of every batch."""

    @model_validator(mode="after")
    def _belongs_together(self) -> Self:
        # Pydantic passes an InvalidConfiguration on unchanged. It would give a ValueError the code invalid_request.
        if self.teacher is None and needs_teacher(self.objective, self.hyperparameters):
            raise InvalidConfiguration(
                f"The objective {self.objective} needs a teacher. Name one in `teacher`, or choose the objective clip.",
                param="teacher",
            )
        try:
            check_combination(
                self.objective,
                self.teacher,
                self.hyperparameters,
                validates=self.validation_data is not None,
            )
            check_split(self.objective, self.hyperparameters, self.devices)
        except ValueError as error:
            raise InvalidConfiguration(
                f"The configuration cannot be used. {error}", param="hyperparameters"
            ) from error
        self._check_promotion()
        return self

    def _check_promotion(self) -> None:
        if self.promote != "if_better":
            return
        measured = {evaluation.benchmark for evaluation in self.evaluate}
        if "winoground" not in measured:
            raise InvalidConfiguration(
                "`promote: if_better` needs a winoground data set in `evaluate`, because it compares GroupMatch.",
                param="evaluate",
            )
        if not measured & {"zero-shot", "retrieval"} and self.validation_data is None:
            raise InvalidConfiguration(
                "`promote: if_better` needs zero-shot or retrieval in `evaluate`, or validation_data, because "
                "it checks that accuracy does not fall by more than max_loss."
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

    def resolved(self, *, max_bad_share: float, **named: Any) -> Self:
        """Replace names by what they mean now, an unset `max_bad_share` by that of the check, and an unset weight."""
        options = self.hyperparameters
        written: dict[str, Any] = {"sds_weight": teacher_weight(self.objective, options)}
        if options.balances_negatives:
            written["negatives_balance"] = True  # without it, a row is of before: see `meant_before`
        if "max_bad_share" not in options.model_fields_set:
            written["max_bad_share"] = max_bad_share
        return self.model_copy(update={**named, "hyperparameters": options.model_copy(update=written)})

    def config(self, **chosen: Any) -> FinetuneConfig:
        """The run's configuration. The worker chooses `PATH_OPTIONS` and a base that can be loaded."""
        own = {name: getattr(self, name) for name in ("base", "teacher", "objective", "seed")}
        return FinetuneConfig(**{**READING, **self.hyperparameters.model_dump(), **own, **chosen})

    def as_shown(self) -> dict[str, Any]:
        """The spec as a dry run shows it: every option of the run, and the fields of the job."""
        config = self.config(data=Path(self.training_data), val=self.validation_data)
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
            "caption_cache": None,
        }
        return config.model_copy(update=named)

    @classmethod
    def upgraded(cls, config: Mapping[str, Any] | None) -> dict[str, Any]:
        values = super().upgraded(config)
        if "format" in (config or {}):
            own, options = values, values.get("hyperparameters", {})
        else:
            options = {
                name: values.pop(name) for name in list(values) if name in Hyperparameters.model_fields
            }
            own = {name: value for name, value in values.items() if name not in {*READING, "workers"}}
        return {**own, "hyperparameters": meant_before(options) | options}
