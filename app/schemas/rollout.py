"""The answer of a request that moves an alias: where it points, and which processes serve it."""

from collections.abc import Sequence
from enum import StrEnum
from typing import Self

from pydantic import BaseModel, Field

from sds_clip.app.schemas.models import NameStatus, ProcessStatus
from sds_clip.app.schemas.versions import AliasInfo


class RolloutState(StrEnum):
    """How far a process is with a generation of an alias."""

    SERVING = "serving"
    FAILED = "failed"
    BEHIND = "behind"


class ProcessRollout(BaseModel):
    """How far one serving process is with the alias's generation."""

    process: str
    host: str
    pid: int
    at: float = Field(description="When the process reported this state.")
    state: RolloutState = Field(
        description="`serving`: the process serves this generation of the alias, or a later one. `failed`: it could "
        "not load the version, and tries again. `behind`: neither yet."
    )
    version: str | None = Field(description="The version that it serves under the alias's name.")
    generation: int | None = Field(description="The generation that it serves under the alias's name.")
    error: str | None = Field(description="Why the version could not be loaded, or the aliases not be read.")

    @classmethod
    def of(cls, status: ProcessStatus, alias: AliasInfo) -> Self:
        name = next((each for each in status.models if each.name == alias.name), NameStatus(name=alias.name))
        failure, state, error = name.last_failed_load, RolloutState.BEHIND, status.aliases.error
        if _has(name, alias):
            state, error = RolloutState.SERVING, None
        elif failure is not None and failure.generation >= alias.generation:
            state, error = RolloutState.FAILED, failure.reason
        return cls(
            **status.model_dump(include={"process", "host", "pid", "at"}),
            **name.model_dump(include={"version", "generation"}),
            state=state,
            error=error,
        )


class MovedAlias(AliasInfo):
    """An alias after a promotion or a rollback."""

    served_by_all: bool | None = Field(
        description="Whether every live serving process serves it. Null if the request did not wait (`wait_s`)."
    )
    processes: list[ProcessRollout] | None = Field(
        description="The live serving processes after the wait. The process that answers comes first. Null if the "
        "request did not wait, or if the reports of the other processes cannot be read."
    )

    @classmethod
    def watched(cls, alias: AliasInfo, processes: Sequence[ProcessRollout] | None) -> Self:
        """The answer after a wait."""
        serves = processes is not None and all(each.state is RolloutState.SERVING for each in processes)
        return cls(**alias.model_dump(), served_by_all=serves, processes=processes)


def _has(name: NameStatus, alias: AliasInfo) -> bool:
    """Whether a process serves this generation of an alias or a later one.

    The versions are compared too, because a reference of the same name may be served under generation 1.
    """
    if name.generation is None:
        return False
    return name.generation > alias.generation or (name.generation, name.version) == (
        alias.generation,
        alias.version,
    )
