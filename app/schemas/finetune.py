"""POST /finetune and POST /evaluate."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, create_model, field_validator

from app.schemas.common import Body, example
from app.store.specs import MAX_EVALUATIONS, PLACES, EvaluateJob, Evaluation, Promote, Thresholds
from models.training.config import FinetuneConfig

_BESIDE = frozenset({"base", "teacher", "objective", "seed"})
"""Options of a run that stand beside the hyperparameters."""
_OF_THE_DATA = frozenset({"data_format", "image_key", "caption_key", "separator"})
"""Found out when a data set is checked, and the same for everybody who uses it."""
_OF_THE_MACHINE = frozenset({"workers"})
_NAMES = [
    name
    for name in FinetuneConfig.model_fields
    if name not in PLACES | _BESIDE | _OF_THE_DATA | _OF_THE_MACHINE
]

MAX_NUMBER = 10**9
"""Above any run that ends, and below what arithmetic has trouble with."""


class _Bounded(BaseModel):
    model_config = ConfigDict(extra="forbid")

    @field_validator("*")
    @classmethod
    def _is_sane(cls, value: Any) -> Any:
        if isinstance(value, int | float) and value > MAX_NUMBER:
            raise ValueError(f"must be {MAX_NUMBER} at most")
        return value


_fields: dict[str, Any] = {
    name: (FinetuneConfig.model_fields[name].annotation, FinetuneConfig.model_fields[name]) for name in _NAMES
}
Hyperparameters: type[BaseModel] = create_model(
    "Hyperparameters",
    __base__=_Bounded,
    __doc__="How the model is fine-tuned; give either `steps` or `epochs`.",
    **_fields,
)
"""The options of `models.training.config` that a caller may set, with their ranges and defaults."""

MetadataKey = Annotated[str, Field(min_length=1, max_length=64)]
MetadataValue = Annotated[str, Field(max_length=512)]
Metadata = Annotated[
    dict[MetadataKey, MetadataValue], Field(max_length=16, description="The caller's own notes.")
]
Suffix = Annotated[
    str | None, Field(pattern=r"^[A-Za-z0-9._-]{1,64}$", description="A word to know the job by.")
]
DatasetId = Annotated[
    str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$", examples=["ds_5f0c1a2b3c4d5e6f7a8b9c0d"])
]
ModelReference = Annotated[str, Field(min_length=1, max_length=1024)]
MaxRunTime = Annotated[
    float | None,
    Field(
        gt=0,
        description="How long it may run, over all attempts; the operator's limit where it is not given.",
    ),
]
DryRun = Annotated[bool, Field(description="Check everything and say what would be done, and do nothing.")]


class FinetuneRequest(Body):
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

    base: ModelReference = Field(
        "default", description="A version, an alias, or a model that the operator allows."
    )
    teacher: ModelReference | None = Field(
        None, description="A teacher that the operator allows; the objective `clip` needs none."
    )
    training_data: DatasetId = Field(description="A data set of the format `pairs`.")
    validation_data: DatasetId | None = Field(None, description="Another one, for the validation losses.")
    objective: Literal["clip", "sds-clip", "score"] = Field(
        "sds-clip", description="`clip` is the control without a teacher."
    )
    hyperparameters: Hyperparameters = Field(
        default_factory=Hyperparameters, description="Give either `steps` or `epochs`."
    )
    evaluate: list[Evaluation] = Field(
        [], max_length=MAX_EVALUATIONS, description="Benchmarks to measure the new version on."
    )
    promote: Promote = Field(
        "never",
        description="Whether the alias moves to the new version; for anything but `never` the key needs the "
        "scope admin. `if_better` needs a Winoground set in `evaluate`, and zero-shot, retrieval or validation data: "
        "it moves where, on every Winoground set, GroupMatch is significantly higher and the group score no lower, and "
        "nothing else fell by more than `thresholds` allow. The job's result names what lies under chance.",
    )
    alias: str = Field(
        "default", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$", description="The name that `promote` moves."
    )
    thresholds: Thresholds = Field(default_factory=Thresholds, description="What `if_better` means.")
    seed: int = Field(0, ge=0, lt=2**32)
    suffix: Suffix = None
    metadata: Metadata = Field(default_factory=dict)
    max_run_time_s: MaxRunTime = None
    dry_run: DryRun = False


class EvaluateRequest(EvaluateJob):
    """An evaluation job."""

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

    suffix: Suffix = None
    metadata: Metadata = Field(default_factory=dict)
    max_run_time_s: MaxRunTime = None
    dry_run: DryRun = False


class Estimate(BaseModel):
    """What a job would take, as far as that is known."""

    steps: int | None = Field(description="None while the training data are still being checked.")
    images: int | None = Field(description="Seen in all steps together.")
    seconds: float | None = Field(description="By the pace of an earlier job like it; None where none was.")
    based_on: str | None = Field(description="That job.")
    jobs_ahead: int = Field(description="Jobs that wait or run already.")


class DryRunResult(BaseModel):
    """What a request would do."""

    model_config = example(
        {
            "object": "dry_run",
            "kind": "finetune",
            "config": {"base": "demo", "steps": 200},
            "estimate": {
                "steps": 200,
                "images": 12800,
                "seconds": None,
                "based_on": None,
                "jobs_ahead": 0,
            },
        }
    )

    object: Literal["dry_run"] = "dry_run"
    kind: Literal["finetune", "evaluate"]
    config: dict[str, Any] = Field(description="The resolved configuration, every default written out.")
    estimate: Estimate
