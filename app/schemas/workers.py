"""GET /workers."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from app.store.states import JobKind


class WorkerInfo(BaseModel):
    """A worker: a process that takes jobs of one queue and runs them one after another."""

    model_config = ConfigDict(from_attributes=True)

    id: str
    object: Literal["worker"] = "worker"
    alive: bool = Field(
        description="Whether it was seen within its last three heartbeats, which are 10 s apart."
    )
    queue: JobKind
    host: str
    pid: int
    device: str
    version: str = Field(description="Of the program.")
    started_at: float
    seen_at: float
    job: str | None = Field(validation_alias="job_id", description="The job that it has.")


class WorkerList(BaseModel):
    """Workers, those seen last first."""

    object: Literal["list"] = "list"
    data: list[WorkerInfo]
