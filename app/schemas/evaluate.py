"""POST /evaluate."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import ConfigDict, Field, model_validator

from app.schemas.specs import Benchmark, DatasetId, JobSpec, Reference
from app.store.states import JobKind
from models.evaluation.catalog import BENCHMARKS
from models.references import is_version
from models.score_error import SCORE_ERROR, ErrorOf
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
