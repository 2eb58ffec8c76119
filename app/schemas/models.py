"""GET /models, /models/status, /health and /ready."""

from typing import Literal

from pydantic import BaseModel, Field

from app.schemas.common import ModelInfo
from app.schemas.versions import AliasInfo, VersionInfo


class ServedModel(ModelInfo):
    """What a name serves."""

    default: bool = Field(description="Whether requests that name no model get this one.")
    reference: str = Field(description="Where the weights came from.")
    architecture: str
    precision: Literal["float32", "bfloat16", "float16"]
    device: str
    parameters: int
    size_bytes: int = Field(description="The weights in memory.")
    embedding_dimensions: int
    image_size: tuple[int, int]
    context_length: int = Field(description="Longer texts are cut to so many tokens.")
    probabilities: Literal["softmax", "sigmoid"]
    logit_scale: float
    quick_gelu: bool


class ModelsAndVersions(BaseModel):
    """What this process serves, and what is registered."""

    models: list[ServedModel]
    registry: Literal["none", "read", "away"] = Field(
        "none",
        description="`none`: this server keeps no versions. `away`: they cannot be read at the moment.",
    )
    aliases: list[AliasInfo] = Field(default_factory=list)
    versions: list[VersionInfo] = Field([], description="The newest first; `after` takes an id.")
    has_more: bool = Field(False, description="Whether there are more versions.")


class FailedLoad(BaseModel):
    """The last version that an alias was moved to and that could not be loaded."""

    version: str
    generation: int
    at: float = Field(description="Seconds since the epoch, as all times here.")
    code: str
    reason: str
    attempts: int = Field(
        description="How often it was tried; while the alias points at it, it will be again."
    )


class NameStatus(BaseModel):
    """What a process serves under a name."""

    name: str
    version: str | None = Field(None, description="None for an alias of which nothing could be loaded yet.")
    generation: int | None = None
    from_copy: bool = Field(
        False,
        description="Whether it was loaded from this process's own copy: the registry's files are damaged.",
    )
    since: float | None = None
    wanted_version: str | None = Field(None, description="Where the alias points; None for a reference.")
    wanted_generation: int | None = None
    loading: bool = Field(False, description="Whether the wanted version is being made ready.")
    last_failed_load: FailedLoad | None = None


class AliasReading(BaseModel):
    """Whether a process can read the aliases; while it cannot, it serves on what it serves."""

    state: Literal["read", "away", "none"] = Field(description="`none`: it follows no aliases.")
    source: Literal["none", "registry", "state"] = Field(
        "none",
        description="Where those that it follows were read. `state`: it started while they could not be read, and "
        "follows them as it read them last. `none`: it knows none.",
    )
    read_at: float | None = Field(None, description="When they were last read, also in an earlier run.")
    error: str | None = None
    state_error: str | None = Field(
        None, description="Why what is kept for a start without the database could not be written."
    )


class ProcessStatus(BaseModel):
    """One serving process."""

    process: str
    host: str
    pid: int
    started_at: float
    at: float = Field(description="When it said so.")
    aliases: AliasReading
    models: list[NameStatus]


class ServingStatus(BaseModel):
    """Every serving process that is known, the one that answers first."""

    processes: list[ProcessStatus]


class Ready(BaseModel):
    """The default model answers."""

    status: Literal["ok"] = "ok"
    aliases: Literal["none", "registry", "state"] = Field(
        description="Where the aliases that are served were read: as GET /models/status has it."
    )


class Health(BaseModel):
    """Whether the process does its work."""

    status: Literal["ok"] = "ok"
