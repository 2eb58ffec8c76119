"""GET /workers."""

from typing import Literal

from pydantic import BaseModel, Field

from sds_clip.app.schemas.common import Answer
from sds_clip.app.store.states import JobKind


class WorkerInfo(Answer):
    """A worker, which is a process that takes the jobs of one queue and runs them one after another."""

    id: str
    object: Literal["worker"] = "worker"
    alive: bool = Field(
        description="Whether the worker has reported within the last three heartbeats, which are 10 s apart."
    )
    queue: JobKind
    host: str
    pid: int
    device: str
    version: str = Field(description="The version of the program that the worker runs.")
    started_at: float
    seen_at: float
    clock_skew_s: float | None = Field(
        description="The number of seconds by which the clock of the worker's host is ahead of the database's. "
        "It is null for a worker of the release before this one."
    )
    out_because: str | None = Field(
        description="Why the worker takes no jobs, such as a data folder that is not the database's. It is null if the "
        "worker takes them."
    )
    job: str | None = Field(
        validation_alias="job_id", description="The id of the job that the worker is running."
    )


class WorkerList(BaseModel):
    """Workers, most recently seen first."""

    object: Literal["list"] = "list"
    data: list[WorkerInfo]
