"""POST /evaluate."""

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from sds_clip.app.errors import InvalidRequest
from sds_clip.app.schemas.common import example
from sds_clip.app.schemas.specs import Benchmark, DatasetId, JobSpec, Reference
from sds_clip.app.store.states import JobKind
from sds_clip.models.checkpoints.references import is_version
from sds_clip.models.choices import ErrorOf, LabelSet, Precision, TemplateSet
from sds_clip.models.evaluation.catalog import ScorerName
from sds_clip.models.evaluation.request import EvaluationRequest
from sds_clip.models.training.config import Seed


class EvaluateSpec(JobSpec):
    """An evaluation job. It measures a model on a benchmark and can compare it with a baseline."""

    model_config = example(
        {
            "model": "default",
            "benchmark": "winoground",
            "data": "ds_5f0c1a2b3c4d5e6f7a8b9c0d",
            "baseline": "demo",
            "dry_run": True,
        }
    )
    kind = JobKind.EVALUATE

    benchmark: Benchmark
    """The benchmark, which is the format of the data set."""
    data: DatasetId
    """The data set to measure on. Its format must be that of the benchmark."""
    model: Reference | None = None
    """The model, version (its id or its beginning) or alias that the scorer `clip` measures. The scorer `diffusion`
    measures the teacher and ignores this field."""
    scorer: ScorerName = EvaluationRequest.scorer
    """What scores a caption against an image: a CLIP model (`clip`), or the teacher's denoising error
    (`diffusion`)."""
    teacher: Reference | None = None
    """The teacher that the scorer `diffusion` measures. The scorer `clip` takes none."""
    baseline: Reference | None = None
    """A second model, version or alias that is measured for comparison."""
    classes: LabelSet | None = None
    """The class names of the benchmark `zero-shot`. By default, the names in the data are used."""
    templates: Literal["photo", TemplateSet] | None = None
    """The prompt templates of the benchmark `zero-shot`."""
    order_seed: Seed = EvaluationRequest.order_seed
    """The seed for shuffling the captions of `coco-order` and `flickr-order`."""
    draws: Annotated[int, Field(ge=1, le=10_000)] = EvaluationRequest.draws
    """The number of noise levels over which the diffusion score averages."""
    seed: Seed = EvaluationRequest.seed
    """The seed for the noise of the diffusion score."""
    score_error: ErrorOf = EvaluationRequest.score_error
    """What the diffusion score takes as its error: that of the noise, or that of the velocity, which gives more weight
    to high noise."""
    precision: Precision = EvaluationRequest.precision
    """The number format in which the model computes."""
    batch_size: Annotated[int, Field(ge=1, le=4096)] = EvaluationRequest.batch_size
    """The number of images or texts that are encoded at once."""
    max_bad_share: Annotated[float, Field(ge=0, le=1)] = EvaluationRequest.max_bad_share
    """The share of the items that may be unusable. By default, that of the data set's check."""

    @model_validator(mode="after")
    def _belongs_together(self) -> Self:
        # Pydantic passes an InvalidRequest on unchanged, so its field is kept.
        needed, other = ("model", "diffusion") if self.scorer == "clip" else ("teacher", "clip")
        if getattr(self, needed) is None:
            raise InvalidRequest(
                f"The scorer {self.scorer} needs a {needed}. Name one in `{needed}`, or choose the scorer {other}.",
                param=needed,
            )
        try:
            self.request(self.data)
        except ValueError as error:
            raise InvalidRequest(f"{str(error).rstrip('.')}.", param=self._at_fault()) from error
        return self

    def _at_fault(self) -> str | None:
        """The option without which the others belong together, if one alone is at fault."""
        for name, field in type(self).model_fields.items():
            if name in self.model_fields_set and not field.is_required():
                with suppress(ValueError):
                    self.model_copy(update={name: field.default}).request(self.data)
                    return name
        return None

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

    def resolved(self, *, max_bad_share: float, **named: str) -> Self:
        """Replace names by what they mean now, and an unset `max_bad_share` by that of the check."""
        given = "max_bad_share" in self.model_fields_set
        return self.model_copy(update=named if given else {**named, "max_bad_share": max_bad_share})

    @classmethod
    def upgraded(cls, config: Mapping[str, Any] | None) -> dict[str, Any]:
        values = super().upgraded(config)
        if "format" not in (config or {}) and values.get("scorer") != "diffusion":
            # The scorer clip does not use it, and its default was different in format 0.
            values.pop("score_error", None)
        return values
