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
    """An evaluation job. It measures a model on a benchmark and can compare it with a baseline."""

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
    """The model, version or alias that the scorer `clip` measures. The scorer `diffusion` measures the teacher and
    ignores this field."""
    scorer: Literal["clip", "diffusion"] = "clip"
    """What scores a caption against an image: a CLIP model (`clip`), or the teacher's denoising error
    (`diffusion`)."""
    teacher: Reference | None = None
    """The teacher that the scorer `diffusion` measures. The scorer `clip` takes none."""
    baseline: Reference | None = None
    """A second model, version or alias that is measured for comparison."""
    classes: Literal["imagenet"] | None = None
    """The class names of the benchmark `zero-shot`. By default, the names in the data are used."""
    templates: Literal["photo", "simple", "openai"] | None = None
    """The prompt templates of the benchmark `zero-shot`."""
    order_seed: Seed = 0
    """The seed for shuffling the captions of `coco-order` and `flickr-order`."""
    draws: Annotated[int, Field(ge=1, le=10_000)] = 32
    """The number of noise levels over which the diffusion score averages."""
    seed: Seed = 0
    """The seed for the noise of the diffusion score."""
    score_error: ErrorOf = SCORE_ERROR
    """What the diffusion score takes as its error: that of the noise, or that of the velocity, which gives more weight
    to high noise."""
    precision: Literal["auto", "float32", "bfloat16", "float16"] = "float32"
    batch_size: Annotated[int, Field(ge=1, le=4096)] = 32
    max_bad_share: Annotated[float, Field(ge=0, le=1)] = 0.0

    @model_validator(mode="after")
    def _belongs_together(self) -> Self:
        if self.scorer not in BENCHMARKS[self.benchmark].scorers:
            raise ValueError(
                f"The benchmark {self.benchmark} cannot be measured with the scorer {self.scorer}"
            )
        for name in ("classes", "templates", "order_seed"):
            if self._is_given(name) and name not in BENCHMARKS[self.benchmark].options:
                raise ValueError(f"The option {name} cannot be used with {self.benchmark}")
        for name in ("draws", "seed", "score_error"):
            if self._is_given(name) and self.scorer == "clip":
                raise ValueError(f"The option {name} needs the scorer diffusion")
        if self.scorer == "clip" and self.model is None:
            raise ValueError("The scorer clip needs a model")
        if self.scorer == "clip" and self.teacher is not None:
            raise ValueError("The option teacher needs the scorer diffusion")
        if self.scorer == "diffusion" and self.teacher is None:
            raise ValueError("The scorer diffusion needs a teacher")
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
