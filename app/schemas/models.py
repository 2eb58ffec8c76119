"""GET /models, /models/status, /health and /ready."""

from typing import Literal

from pydantic import BaseModel, Field

from sds_clip.app.schemas.common import ModelInfo
from sds_clip.app.schemas.versions import AliasInfo, VersionInfo


class ServedModel(ModelInfo):
    """A model that the server serves under a name."""

    default: bool = Field(description="Whether this model answers requests that name no model.")
    reference: str = Field(description="The reference from which the weights were loaded.")
    architecture: str
    precision: Literal["float32", "bfloat16", "float16"]
    decoding: Literal["full", "scaled"] = Field(
        description="How large JPEGs are decoded. `full`: in full. `scaled`: at a half, a quarter or an eighth of "
        "their size, where this is a whole number of pixels and at least twice the size of the model's input."
    )
    device: str
    parameters: int = Field(description="The number of parameters of the model.")
    size_bytes: int = Field(description="The size of the weights in memory, in bytes.")
    packed: bool = Field(
        description="Whether the weights are kept in the order in which the CPU's kernels read them. This is faster."
    )
    embedding_dimensions: int
    image_size: tuple[int, int] = Field(description="The size of the images that the model takes, in pixels.")
    context_length: int = Field(
        description="The number of tokens that the model reads of a text. Longer texts are cut."
    )
    probabilities: Literal["softmax", "sigmoid"] = Field(
        description="How the model turns logits into probabilities."
    )
    logit_scale: float
    quick_gelu: bool


class ModelsAndVersions(BaseModel):
    """The models that this process serves, and the registered aliases and versions."""

    models: list[ServedModel]
    registry: Literal["none", "read", "away"] = Field(
        "none",
        description="Whether the registered versions could be read. `none`: this server keeps no versions. "
        "`away`: the database cannot be read at the moment.",
    )
    aliases: list[AliasInfo] = Field(default_factory=list)
    versions: list[VersionInfo] = Field([], description="The registered versions, newest first.")
    bases: list[str] = Field(
        [], description="The references that jobs can name as a model, besides versions and aliases."
    )
    teachers: list[str] = Field([], description="The teachers that jobs can name.")
    has_more: bool = Field(
        False, description="Whether more versions follow. To read them, pass the last id as `after`."
    )


class FailedLoad(BaseModel):
    """The last version of an alias that the process could not load."""

    version: str
    generation: int
    at: float = Field(
        description="When the process last tried to load it, in seconds since the Unix epoch, like all times in "
        "this API."
    )
    code: str = Field(description="The code of the error.")
    reason: str = Field(description="Why the version could not be loaded.")
    attempts: int = Field(
        description="How often the process has tried to load the version. It tries again while the alias points "
        "at it."
    )


class NameStatus(BaseModel):
    """What one process serves under one name."""

    name: str
    version: str | None = Field(
        None,
        description="The version that answers. It is null for an alias of which no version could be loaded yet.",
    )
    generation: int | None = None
    from_copy: bool = Field(
        False,
        description="Whether the version was loaded from this process's own copy because the published files are "
        "damaged.",
    )
    alone: str | None = Field(
        None,
        description="Why requests for this version share no batches with those for other versions, which makes them "
        "slower when many versions are asked for. It is null if they share them.",
    )
    since: float | None = Field(None, description="When the process began to serve this version.")
    wanted_version: str | None = Field(
        None, description="The version that the alias points to. It is null for a reference."
    )
    wanted_generation: int | None = None
    loading: bool = Field(False, description="Whether the wanted version is being loaded.")
    last_failed_load: FailedLoad | None = None


class AliasReading(BaseModel):
    """Whether a process can read the aliases. While it cannot, it keeps serving the same versions."""

    state: Literal["read", "away", "none"] = Field(
        description="`read`: the process can read the aliases. `away`: it cannot read them now. `none`: it "
        "follows no aliases."
    )
    source: Literal["none", "registry", "state"] = Field(
        "none",
        description="Where the process read the aliases that it follows. `registry`: in the database. `state`: "
        "in its state folder, because it has not been able to read the database since it started. These "
        "are the aliases of an earlier run. `none`: it knows no aliases.",
    )
    read_at: float | None = Field(
        None,
        description="When the process last read the aliases from the database, perhaps in an earlier run.",
    )
    error: str | None = Field(None, description="Why the aliases cannot be read.")
    state_error: str | None = Field(
        None,
        description="Why the process could not write its state folder, which it needs to start without the "
        "database.",
    )


class ProcessStatus(BaseModel):
    """The state of one serving process."""

    process: str
    host: str
    pid: int
    started_at: float
    at: float = Field(description="When the process reported this state.")
    aliases: AliasReading
    models: list[NameStatus]
    data_folder_error: str | None = Field(
        None,
        description="Why the process cannot use its data folder. Meanwhile it serves the same versions, and refuses "
        "what needs files. It is null if it can use it.",
    )


class ServingStatus(BaseModel):
    """All known serving processes. The process that answers the request comes first."""

    processes: list[ProcessStatus]


class Ready(BaseModel):
    """The process can answer requests."""

    status: Literal["ok"] = "ok"
    aliases: Literal["none", "registry", "state"] = Field(
        description="Where the process read the aliases that it serves, as in `aliases.source` of GET "
        "/models/status."
    )


class Health(BaseModel):
    """The process is working."""

    status: Literal["ok"] = "ok"
