"""What the bodies of POST /finetune and /evaluate share: how a job's spec is sent, stored and read by its worker.

A row's `config` is its spec with every default written out, so that a job means the same after an upgrade. Only `NEWS`
are left out where they have their defaults. It contains the number of its format. `JobSpec.read` reads all formats:

    1   the spec as it is sent
    0   without a number: the hyperparameters of a fine-tuning job are beside its other fields
"""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from sds_clip.app.errors import InvalidRequest
from sds_clip.app.schemas.common import Body, IdOrName, Name
from sds_clip.app.store.records import JOB_FORMAT
from sds_clip.app.store.states import JobKind
from sds_clip.models.errors import ConfigError
from sds_clip.models.evaluation.catalog import resolve
from sds_clip.models.training.config import config_error

Benchmark = Annotated[str, AfterValidator(resolve)]
DatasetId = Annotated[IdOrName, Field(examples=["ds_5f0c1a2b3c4d5e6f7a8b9c0d"])]
"""The id or the name of a data set. In a stored spec, it is the id."""
Reference = Annotated[str, Field(min_length=1, max_length=1024)]
NEWS = frozenset(
    {
        *("devices", "lora_rank", "lora_alpha", "lora_targets", "negatives_balance", "negatives_focal_gamma"),
        *("negatives_label_smoothing", "intra_modal_weight", "rank_weight", "rank_max_threshold"),
        *("paraphrase_weight", "feature_distillation_weight", "similarity_distillation_weight"),
        *("teacher_offload", "alpha"),
    }
)
"""The fields that a worker of the release before refuses. In a rolling upgrade it runs the jobs that do not use them.
After a release, this set is empty again."""
MetadataKey = Annotated[str, Field(min_length=1, max_length=64)]
MetadataValue = Annotated[str, Field(max_length=512)]


class Part(Body):
    """A job's spec, or a part of one."""

    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)


class JobSpec(Part):
    """The fields of every job. They are not part of `config`: the row has columns for them, or needs none."""

    kind: ClassVar[JobKind]

    name: Name | None = None
    """What you call the job, in at most 64 letters, digits, dots, hyphens and underscores. The name stands for its id,
    and none of your other jobs may have it."""
    suffix: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,64}$")] | None = None
    """A short label that helps you recognise the job."""
    metadata: Annotated[dict[MetadataKey, MetadataValue], Field(max_length=16)] = Field(default_factory=dict)
    """Your own notes, as text values under keys of your choice."""
    priority: Annotated[int, Field(ge=-100, le=100)] = 0
    """Of your jobs that wait, the one with the highest priority begins first. Jobs of other keys do not wait for it."""
    max_run_time_s: Annotated[float, Field(gt=0)] | None = None
    """The number of seconds that the job may run, over all its attempts. By default, the operator's limit applies."""
    dry_run: bool = False
    """Only check the request, and return what the job would do. No job is created."""

    def as_sent(self) -> dict[str, Any]:
        """The fields that the caller set. A replay with the same Idempotency-Key must send the same ones."""
        return self.model_dump(mode="json", exclude_unset=True, exclude={"dry_run"})

    def as_row(self) -> dict[str, Any]:
        left_out = dict.fromkeys(JobSpec.model_fields, True) | _unused_news(self)
        return {"format": JOB_FORMAT, **self.model_dump(mode="json", exclude=left_out)}

    def as_shown(self) -> dict[str, Any]:
        return self.model_dump(mode="json", exclude=set(JobSpec.model_fields))

    @classmethod
    def read(cls, config: Mapping[str, Any] | None) -> Self:
        """The spec in a row's `config`. Raises ConfigError."""
        if (config or {}).get("format", 0) > JOB_FORMAT:
            raise ConfigError("A newer version of this program accepted the job; update the worker.")
        try:
            return cls.model_validate(cls.upgraded(config))
        except ValidationError as error:
            raise config_error(error, cls) from error
        except InvalidRequest as error:
            raise ConfigError(error.message) from error

    @classmethod
    def upgraded(cls, config: Mapping[str, Any] | None) -> dict[str, Any]:
        """A row's `config` in the current format, without the format's number. It is not validated."""
        return {name: value for name, value in (config or {}).items() if name != "format"}


def _unused_news(part: BaseModel) -> dict[str, Any]:
    """The fields among `NEWS` that have their defaults, also those of a part's parts, as pydantic excludes them."""
    fields = type(part).model_fields
    unused = {
        name: True for name in NEWS & fields.keys() if getattr(part, name) == fields[name].get_default()
    }
    parts = {name: _unused_news(value) for name, value in part if isinstance(value, BaseModel)}
    return unused | {name: found for name, found in parts.items() if found}
