"""GET /jobs, /jobs/{id}, /jobs/{id}/events and /jobs/{id}/metrics; what a dry run finds."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from app.schemas.common import example
from app.schemas.finetune import FinetuneSpec
from app.schemas.listing import Listing
from app.schemas.specs import JobSpec
from app.store.records import Event, Job, Level, MetricPoint
from app.store.states import JobKind, JobStatus

FILES = "files"
"""The key in a job's result for paths below the data folder, which callers do not see."""


class Progress(BaseModel):
    """How far the stage is."""

    step: int
    steps: int | None
    share: float | None = Field(description="From 0 to 1.")


class JobProgress(BaseModel):
    """The event `progress` of a job's stream."""

    status: JobStatus
    stage: str | None
    progress: Progress
    attempt: int
    estimated_finish: float | None
    no_worker: bool

    @classmethod
    def of(cls, job: Job, *, no_worker: bool) -> "JobProgress":
        return cls.model_validate({**vars(job), "progress": progress_of(job), "no_worker": no_worker})


class JobErrorInfo(BaseModel):
    """Why a job failed or was paused."""

    model_config = ConfigDict(from_attributes=True)

    code: str
    message: str
    param: str | None
    retryable: bool = Field(
        description="Whether the same request may succeed another time; then POST /jobs/{id}/retry goes on with it."
    )


class Transition(BaseModel):
    """A change of a job's status."""

    at: float
    from_status: JobStatus | None
    to_status: JobStatus
    message: str

    @classmethod
    def of(cls, event: Event) -> "Transition":
        data = event.data or {}
        return cls(
            at=event.at, from_status=data.get("from"), to_status=JobStatus(data["to"]), message=event.message
        )


class MetricPointInfo(BaseModel):
    """A job's metrics at a step; a number that was not finite is null."""

    model_config = ConfigDict(from_attributes=True)

    step: int
    values: dict[str, float | None]
    created_at: float = Field(validation_alias="at")


class _JobInfo(BaseModel):
    id: str
    object: Literal["job"] = "job"
    status: JobStatus
    created_at: float = Field(description="Seconds since the epoch, as all times here.")
    started_at: float | None
    finished_at: float | None
    estimated_finish: float | None
    stage: str | None = Field(description="What is being done: loading, training, evaluating, ...")
    progress: Progress
    no_worker: bool = Field(
        description="Whether the job needs a worker and none of its queue is alive; see GET /workers."
    )
    attempt: int = Field(
        description="Which attempt this is since the job last came to a new step; its process died before each other."
    )
    max_attempts: int
    interruptions: int = Field(description="How often its worker was lost or shut down.")
    max_interruptions: int
    run_time_s: float = Field(description="Over all attempts, up to when a worker last let go of it.")
    max_run_time_s: float
    result_version: str | None = Field(
        description="The version that the job made; see GET /models/{version}."
    )
    result: dict[str, Any] | None = Field(
        description="Metrics, evaluations, what came of promoting, and warnings (`code`, `message`, `figures`): "
        "`teacher_had_no_say` where L_SDS changed next to nothing."
    )
    report: str | None = Field(description="Where the evaluation's page is.")
    error: JobErrorInfo | None
    pause_reason: JobErrorInfo | None = Field(
        description="Why its worker paused it (`disk_reserve`, `storage_full`); POST resume takes it up again."
    )
    files_removed_at: float | None = Field(
        description="When its files were removed, checkpoints and report among them; a retry then starts anew."
    )
    suffix: str | None
    metadata: dict[str, Any]
    transitions: list[Transition] | None = Field(None, description="In GET /jobs/{id} alone.")
    metrics: MetricPointInfo | None = Field(None, description="The newest, in GET /jobs/{id} alone.")


class FinetuneJobInfo(_JobInfo):
    """A fine-tuning job."""

    kind: Literal["finetune"] = "finetune"
    base: str = Field(description="An alias stands here as the version that it pointed at.")
    teacher: str | None
    training_data: str
    validation_data: str | None
    objective: str
    hyperparameters: dict[str, Any] = Field(description="All of them, defaults included.")
    evaluate: list[dict[str, Any]]
    promote: Literal["never", "if_better", "always"]
    alias: str
    thresholds: dict[str, float]
    seed: int


class EvaluateJobInfo(_JobInfo):
    """An evaluation job."""

    kind: Literal["evaluate"] = "evaluate"
    model: str | None
    benchmark: str
    data: str
    scorer: Literal["clip", "diffusion"]
    teacher: str | None
    baseline: str | None
    options: dict[str, Any] = Field(description="All others, defaults included.")


JobInfo = Annotated[FinetuneJobInfo | EvaluateJobInfo, Field(discriminator="kind")]


class JobList(Listing):
    """Jobs, the newest first."""

    data: list[JobInfo]


class EventInfo(BaseModel):
    """Something that happened to a job."""

    model_config = ConfigDict(from_attributes=True)

    id: int = Field(
        validation_alias="number",
        description="Rises within a job, from 1; `after` and Last-Event-ID take it.",
    )
    object: Literal["job.event"] = "job.event"
    created_at: float = Field(validation_alias="at")
    level: Level
    type: str = Field(description="`status`, `message` or `metrics`.")
    message: str
    data: dict[str, Any] | None


class EventList(Listing):
    """Events, in their order."""

    data: list[EventInfo]


class MetricList(Listing):
    """Metrics by step."""

    data: list[MetricPointInfo]


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


def job_info(
    job: Job,
    *,
    no_worker: bool,
    transitions: Sequence[Event] | None = None,
    metrics: MetricPoint | None = None,
) -> FinetuneJobInfo | EvaluateJobInfo:
    result = None if job.result is None else {name: job.result[name] for name in job.result if name != FILES}
    values: dict[str, Any] = {
        **vars(job),
        "progress": progress_of(job),
        "no_worker": no_worker,
        "result": result,
        "report": None if report_of(job) is None else f"/jobs/{job.id}/report",
        "transitions": None if transitions is None else [Transition.of(event) for event in transitions],
        "metrics": metrics,
    }
    del values["kind"]
    if job.kind is JobKind.FINETUNE:
        return FinetuneJobInfo.model_validate(values | FinetuneSpec.upgraded(job.config))
    config = JobSpec.upgraded(job.config)
    options = {name: config[name] for name in config if name not in EvaluateJobInfo.model_fields}
    return EvaluateJobInfo.model_validate(values | config | {"options": options})


def report_of(job: Job) -> str | None:
    """The path of a job's report below the data folder. None if there is none or it was removed."""
    files = None if job.files_removed_at is not None else (job.result or {}).get(FILES)
    path = files.get("report") if isinstance(files, Mapping) else None
    return None if path is None else str(path)


def progress_of(job: Job) -> Progress:
    share = min(1.0, job.step / job.steps) if job.steps else None
    return Progress(step=job.step, steps=job.steps, share=share)
