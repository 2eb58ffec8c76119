"""GET /jobs, /jobs/{id}, /jobs/{id}/events and /jobs/{id}/metrics; what a dry run finds."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field
from typing_extensions import TypeAliasType

from sds_clip.app.schemas.common import Answer, example
from sds_clip.app.schemas.finetune import FinetuneSpec
from sds_clip.app.schemas.listing import Listing
from sds_clip.app.schemas.specs import JobSpec
from sds_clip.app.store.records import Event, Job, Json, Level, MetricPoint
from sds_clip.app.store.states import JobKind, JobStatus
from sds_clip.app.store.verdicts import dataset_of
from sds_clip.models.evaluation.results import GROUP_MATCH

VALIDATION = ("validation_image_to_text", "validation_text_to_image")
"""The shares of right pairs within the batches of the validation data. Those of the base begin with `base_`."""
FILES = "files"
"""The key in a job's result for paths below the data folder, which callers do not see."""
Wait = Literal["check", "worker", "turn", "attempt", "silent_worker", "checkpoint"]


class Progress(BaseModel):
    """How far the current stage is."""

    step: int = Field(description="The number of steps that are done.")
    steps: int | None = Field(description="The number of all steps. It is null if it is not known.")
    share: float | None = Field(
        description="The share of the steps that is done, from 0 to 1. It is null if the number of steps is not "
        "known."
    )


class JobProgress(BaseModel):
    """The data of an event `progress` in the stream of a job's events."""

    status: JobStatus
    stage: str | None
    progress: Progress
    attempt: int
    estimated_finish: float | None
    no_worker: bool

    @classmethod
    def of(cls, job: Job, *, no_worker: bool) -> "JobProgress":
        return cls.model_validate({**vars(job), "progress": progress_of(job), "no_worker": no_worker})


class JobErrorInfo(Answer):
    """Why a job failed or was paused."""

    code: str
    message: str
    param: str | None
    retryable: bool = Field(
        description="Whether another attempt may succeed. If so, POST /jobs/{id}/retry continues the job."
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


class MetricPointInfo(Answer):
    """A job's metrics at one step. A number that was not finite is null."""

    step: int
    values: dict[str, float | None]
    created_at: float = Field(validation_alias="at")


class Improvement(BaseModel):
    """The main figure of a job's model, and that of the model with which it was compared."""

    metric: str = Field(
        description="The name of the figure: an outcome of a benchmark such as `group_match`, or "
        "`validation_retrieval`, the mean share of right pairs within the batches of the validation data."
    )
    compared_with: str | None = Field(
        description="The model of the comparison: a version or a reference. It is null if the result does not name it."
    )
    baseline: float = Field(description="The figure of that model.")
    model: float = Field(description="The figure of the job's model.")
    difference: float = Field(description="`model` minus `baseline`. A positive one is an improvement.")


class _JobInfo(BaseModel):
    id: str
    object: Literal["job"] = "job"
    name: str = Field(description="The job's name. It is empty if it was given none.")
    status: JobStatus
    created_at: float = Field(
        description="When the job was created, in seconds since the Unix epoch. All times in this API have this "
        "form."
    )
    started_at: float | None
    finished_at: float | None
    estimated_finish: float | None = Field(description="When the current stage is expected to finish.")
    stage: str | None = Field(description="What the job is doing: loading, training, evaluating, ...")
    progress: Progress
    no_worker: bool = Field(
        description="Whether the job needs a worker although no worker of its queue is alive. See GET "
        "/workers."
    )
    attempt: int = Field(
        description="The number of the current attempt. It counts from the last time that the job reached a new "
        "step. Each earlier attempt ended because the job's process died."
    )
    max_attempts: int = Field(description="The job fails if this many attempts make no progress.")
    priority: int
    interruptions: int = Field(description="How often the job's worker was lost or shut down.")
    max_interruptions: int = Field(description="The job fails after more interruptions than this.")
    run_time_s: float = Field(
        description="The number of seconds that the job ran, over all attempts, until a worker last released it."
    )
    max_run_time_s: float = Field(description="The job fails when it has run for this many seconds.")
    result_version: str | None = Field(
        description="The version that the job made. See GET /models/{version}."
    )
    result: dict[str, Any] | None = Field(
        description="The metrics, the evaluations, the outcome of `promote`, and warnings with `code`, `message` "
        "and `figures`. The warning `teacher_had_no_say` means that the teacher taught almost nothing."
    )
    report: str | None = Field(
        description="The path of the report of a job that has succeeded, or null if there is none."
    )
    error: JobErrorInfo | None
    pause_reason: JobErrorInfo | None = Field(
        description="Why the job's worker paused it: `disk_reserve` or `storage_full`. POST /jobs/{id}/resume "
        "continues it."
    )
    files_removed_at: float | None = Field(
        description="When the job's files were removed, including its checkpoints and report. A retry then "
        "starts from the beginning."
    )
    improvement: Improvement | None = Field(
        None,
        description="How much better the job's model is than another one, in the figure that says most about it. It is "
        "null if the job compared nothing, or has not succeeded.",
    )
    owner: str = Field(description="The name of the API key that made the job. It is empty without keys.")
    suffix: str | None
    metadata: dict[str, Any]
    request: dict[str, Any] | None = Field(
        None,
        description="The fields that the request set, without the defaults. Only GET /jobs/{id} returns them.",
    )
    transitions: list[Transition] | None = Field(
        None, description="Every change of the job's status. Only GET /jobs/{id} returns this."
    )
    metrics: MetricPointInfo | None = Field(
        None, description="The newest metrics. Only GET /jobs/{id} returns them."
    )
    worker_silent_since: float | None = Field(
        None,
        description="Since when the worker that has the job was not heard of: when it last reported, or when the job's "
        "lease ended if the worker reports but the job's process does not. It is null if the worker was heard of "
        "lately. Once the lease has ended, another worker takes the job. Only GET /jobs/{id} returns this.",
    )
    waits_for: Wait | None = Field(
        None,
        description="What the job waits for: the `check` of its data sets; a `worker` that runs such jobs; its `turn`, "
        "since the workers are busy or jobs of other keys come first; the time of its next `attempt`; its "
        "`silent_worker`; or a `checkpoint`, at which its worker stops it. Only GET /jobs/{id} returns this.",
    )


class FinetuneJobInfo(_JobInfo):
    """A fine-tuning job."""

    kind: Literal["finetune"]
    base: str = Field(
        description="The model that is fine-tuned. If the request named an alias, this is the version that it "
        "pointed to then."
    )
    teacher: str | None
    training_data: str
    validation_data: str | None
    objective: str
    hyperparameters: dict[str, Any] = Field(description="All training options, including the defaults.")
    evaluate: list[dict[str, Any]]
    promote: Literal["never", "if_better", "always"]
    alias: str
    thresholds: dict[str, float]
    seed: int
    devices: int = Field(description="The number of devices that train together.")


class EvaluateJobInfo(_JobInfo):
    """An evaluation job."""

    kind: Literal["evaluate"]
    model: str | None
    benchmark: str
    data: str
    scorer: Literal["clip", "diffusion"]
    teacher: str | None
    baseline: str | None
    options: dict[str, Any] = Field(description="All other options, including the defaults.")


class CheckJobInfo(_JobInfo):
    """The check of a data set, which the server has submitted. It cannot be paused, cancelled or retried."""

    kind: Literal["check"]
    dataset: str


JobInfo = TypeAliasType(
    "JobInfo", Annotated[FinetuneJobInfo | EvaluateJobInfo | CheckJobInfo, Field(discriminator="kind")]
)


class JobList(Listing):
    """Jobs, newest first."""

    data: list[JobInfo]


class EventInfo(Answer):
    """Something that happened to a job."""

    id: int = Field(
        validation_alias="number",
        description="The number of the event. It counts from 1 within each job. Pass it as `after` or as "
        "Last-Event-ID.",
    )
    object: Literal["job.event"] = "job.event"
    created_at: float = Field(validation_alias="at")
    level: Level
    type: str = Field(description="The type of the event: `status`, `message` or `metrics`.")
    message: str
    data: dict[str, Any] | None


class EventList(Listing):
    """Events, in the order in which they happened."""

    data: list[EventInfo]


class MetricList(Listing):
    """Metrics, in the order of their steps."""

    data: list[MetricPointInfo]


class CheckpointInfo(BaseModel):
    """A checkpoint of a fine-tuning job."""

    step: int = Field(description="The number of steps that were done.")
    created_at: float
    size_bytes: int
    newest: bool = Field(
        description="Whether the job continues from this checkpoint, unless its files are damaged."
    )
    metrics: MetricPointInfo | None = Field(
        description="The last metrics that were logged up to this step, or null if there are none."
    )


class CheckpointList(BaseModel):
    """The checkpoints that are kept, in the order of their steps."""

    object: Literal["list"] = "list"
    data: list[CheckpointInfo]


class Estimate(BaseModel):
    """What a job would need, as far as it can be estimated."""

    steps: int | None = Field(
        description="The number of steps. It is null while the training data are still being checked."
    )
    images: int | None = Field(description="The number of images that all steps together see.")
    seconds: float | None = Field(
        description="The expected running time, judged by an earlier job of the same kind. It is null if there "
        "was none."
    )
    memory_bytes: float | None = Field(
        description="The most memory that the earlier job has taken: of its GPU or, without one, of its process. It is "
        "null if there was none."
    )
    based_on: str | None = Field(description="The id of that earlier job.")
    jobs_ahead: int = Field(
        description="The number of jobs of the same kind that are already waiting or running."
    )


class DryRunResult(BaseModel):
    """What the request would do."""

    model_config = example(
        {
            "object": "dry_run",
            "kind": "finetune",
            "config": {"base": "demo", "steps": 200},
            "estimate": {
                "steps": 200,
                "images": 12800,
                "seconds": None,
                "memory_bytes": None,
                "based_on": None,
                "jobs_ahead": 0,
            },
        }
    )

    object: Literal["dry_run"] = "dry_run"
    kind: Literal["finetune", "evaluate"]
    config: dict[str, Any] = Field(description="The resolved configuration, including all defaults.")
    estimate: Estimate


def job_info(
    job: Job,
    *,
    no_worker: bool,
    transitions: Sequence[Event] | None = None,
    metrics: MetricPoint | None = None,
    request: Mapping[str, Any] | None = None,
    worker_silent_since: float | None = None,
    now: float | None = None,
) -> FinetuneJobInfo | EvaluateJobInfo | CheckJobInfo:
    result = None if job.result is None else {name: job.result[name] for name in job.result if name != FILES}
    values: dict[str, Any] = {
        **vars(job),
        "progress": progress_of(job),
        "no_worker": no_worker,
        "result": result,
        "report": None if report_of(job) is None else f"/jobs/{job.id}/report",
        "transitions": None if transitions is None else [Transition.of(event) for event in transitions],
        "metrics": metrics,
        "request": request,
        "worker_silent_since": worker_silent_since,
        "waits_for": None if now is None else wait_of(job, now, no_worker, worker_silent_since),
        "improvement": improvement_of(job),
    }
    if job.kind is JobKind.FINETUNE:
        return FinetuneJobInfo.model_validate(values | FinetuneSpec.upgraded(job.config))
    if job.kind is JobKind.CHECK:
        return CheckJobInfo.model_validate(values | {"dataset": dataset_of(job)})
    config = JobSpec.upgraded(job.config)
    options = {name: config[name] for name in config if name not in EvaluateJobInfo.model_fields}
    return EvaluateJobInfo.model_validate(values | config | {"options": options})


def wait_of(job: Job, now: float, no_worker: bool, worker_silent_since: float | None) -> Wait | None:
    """What a job waits for at a time."""
    if job.status is JobStatus.VALIDATING:
        return "check"
    if no_worker:
        return "worker"
    if job.status is JobStatus.QUEUED:
        return "attempt" if job.not_before > now else "turn"
    if worker_silent_since is not None:
        return "silent_worker"
    yields = job.status is JobStatus.RUNNING and job.turn_over_at is not None
    return "checkpoint" if yields or job.status in (JobStatus.PAUSING, JobStatus.CANCELLING) else None


def improvement_of(job: Job) -> Improvement | None:
    """What a finished job's result says: the comparison that it made, or else its validation before and after."""
    with suppress(KeyError, TypeError):  # a result of an earlier release, or of a job that compared nothing
        metric, compared_with, before, after = _compared(job.result or {}, job.config or {})
        return Improvement(
            metric=metric,
            compared_with=compared_with,
            baseline=before,
            model=after,
            difference=after - before,
        )
    return None


def _compared(result: Json, config: Json) -> tuple[str, str | None, float, float]:
    """The figure, the other model, and their values of it. Raises KeyError if nothing was compared."""
    if (other := result.get("baseline")) is not None:
        metric = result["primary"]
        before, after = (each["metrics"][metric]["value"] for each in (other, result))
        return metric, other["provenance"]["model_version"], before, after
    promotion = result.get("promotion") or {}
    for gain in (promotion.get("winoground") or {}).values():
        match = gain[GROUP_MATCH]
        return GROUP_MATCH, promotion["compared_with"], match["baseline"], match["model"]
    metrics = result["metrics"]
    before, after = (
        sum(metrics[f"{prefix}{name}"] for name in VALIDATION) / len(VALIDATION) for prefix in ("base_", "")
    )
    return "validation_retrieval", config["base"], before, after


def report_of(job: Job) -> str | None:
    """The path of a job's report below the data folder. None if there is none or it was removed."""
    files = None if job.files_removed_at is not None else (job.result or {}).get(FILES)
    path = files.get("report") if isinstance(files, Mapping) else None
    return None if path is None else str(path)


def progress_of(job: Job) -> Progress:
    share = min(1.0, job.step / job.steps) if job.steps else None
    return Progress(step=job.step, steps=job.steps, share=share)
