"""POST /evaluate."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import ConfigDict, Field, model_validator

from app.schemas.specs import Benchmark, DatasetId, JobSpec, Reference
from app.store.states import JobKind
from models.choices import ErrorOf, LabelSet, Precision, TemplateSet
from models.evaluation.catalog import ScorerName
from models.evaluation.request import EvaluationRequest
from models.references import is_version
from models.training.config import Seed


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

    benchmark: Benchmark
    data: DatasetId
    model: Reference | None = None
    """Of the scorer `clip`. The scorer `diffusion` measures the teacher; a model beside it is not used."""
    scorer: ScorerName = EvaluationRequest.scorer
    teacher: Reference | None = None
    """Of the scorer `diffusion`, which measures it."""
    baseline: Reference | None = None
    classes: LabelSet | None = None
    """Of zero-shot: the names of the classes; the data's own where it is not given."""
    templates: Literal["photo", TemplateSet] | None = None
    order_seed: Seed = EvaluationRequest.order_seed
    draws: Annotated[int, Field(ge=1, le=10_000)] = EvaluationRequest.draws
    """Noise levels of the diffusion score."""
    seed: Seed = EvaluationRequest.seed
    score_error: ErrorOf = EvaluationRequest.score_error
    """Whose error the diffusion score is: the noise's, or the velocity's, which counts high noise for more."""
    precision: Precision = EvaluationRequest.precision
    batch_size: Annotated[int, Field(ge=1, le=4096)] = EvaluationRequest.batch_size
    max_bad_share: Annotated[float, Field(ge=0, le=1)] = EvaluationRequest.max_bad_share

    @model_validator(mode="after")
    def _belongs_together(self) -> Self:
        self.request(self.data)
        return self

    def request(self, data: str | Path) -> EvaluationRequest:
        """The same as the evaluation takes it. Raises ValueError for options that do not belong together."""
        options = self.model_dump(exclude={*JobSpec.model_fields, "data"})
        return EvaluationRequest(**options, data=data)

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
