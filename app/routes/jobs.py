"""GET /jobs and all below it; cancel, pause, resume, retry and delete."""

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import FileResponse

from sds_clip.app.content_type import JSON
from sds_clip.app.edge.auth import is_revoked
from sds_clip.app.edge.openapi import describe_errors
from sds_clip.app.errors import (
    AmbiguousName,
    DiskReserve,
    FilesOutside,
    InputsGone,
    JobStateConflict,
    Overloaded,
)
from sds_clip.app.jobs.service import JobUpdate
from sds_clip.app.jobs.stream import EVENT_STREAM, MAX_EVENTS_PER_READ, stream
from sds_clip.app.routes.shared import (
    READING,
    After,
    BackendDep,
    BackendWithFiles,
    EngineDep,
    EventNumber,
    JobId,
    LastEventId,
    Limit,
    Owner,
    SearchDep,
    Train,
)
from sds_clip.app.routes.streamed import FRAMES, LOG, event_stream, log_response
from sds_clip.app.schemas.curves import MAX_POINTS, MIN_POINTS, Curves
from sds_clip.app.schemas.jobs import CheckpointList, EventList, JobInfo, JobList, MetricList
from sds_clip.app.store.states import TERMINAL, JobKind, JobStatus

POLICY = (
    "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'; sandbox"
)
"""For a report, whose captions are untrusted: no scripts, no requests, no origin."""
MAX_PAGE_EVENTS = 500
MAX_PAGE_POINTS = 900

router = APIRouter(tags=["jobs"], responses=describe_errors(*READING, AmbiguousName))

Streamed: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "A page of events or, if the request accepts `text/event-stream`, a stream. The stream "
        "sends every event with its number as id, `progress` whenever the progress changes, and `done` "
        "with the job when the job has ended.",
        "content": FRAMES,
    },
    204: {"description": "The job has ended, and Last-Event-ID was its last event. Do not connect again."},
}


@router.get("/jobs")
async def list_jobs(
    caller: Train,
    backend: BackendDep,
    search: SearchDep,
    kind: JobKind | None = None,
    status: JobStatus | None = None,
    owner: Owner = None,
    after: After = None,
    limit: Limit = 20,
) -> JobList:
    """List jobs, newest first. Checks of data sets are listed only with `kind=check`."""
    if after is not None:
        after = await backend.jobs.id_of(caller, after)
    return await backend.jobs.list(
        caller, kind=kind, status=status, owner=owner, search=search, after=after, limit=limit
    )


@router.get("/jobs/{job_id}")
async def get_job(caller: Train, backend: BackendDep, job_id: JobId) -> JobInfo:
    """Return a job: its progress, its newest metrics, every change of its status, and its result or error."""
    return await backend.jobs.get(caller, job_id)


@router.get(
    "/jobs/{job_id}/events",
    response_model=EventList,
    responses=describe_errors(Overloaded) | Streamed,
)
async def list_job_events(
    request: Request,
    caller: Train,
    backend: BackendDep,
    engine: EngineDep,
    job_id: JobId,
    after: EventNumber = 0,
    limit: Annotated[
        int,
        Query(
            ge=1,
            le=MAX_PAGE_EVENTS,
            description="The largest number of events on a page. A stream ignores it.",
        ),
    ] = 100,
    seen: LastEventId = None,
) -> Response:
    """Return what happened to a job, as a page or as a stream of Server-Sent Events."""
    if EVENT_STREAM not in request.headers.get("accept", ""):
        content = await backend.jobs.events(caller, job_id, after=after, limit=limit)
        return Response(content.model_dump_json(), media_type=JSON)
    start = after if seen is None else seen

    async def read(after: int) -> JobUpdate:
        return await backend.jobs.update_since(caller, job_id, after, MAX_EVENTS_PER_READ)

    first = await read(start)
    if seen is not None and first.job.status in TERMINAL and not first.events:
        return Response(status_code=204)
    frames = stream(read, first, start, ending=lambda: engine.draining or is_revoked(request, caller))
    return event_stream(frames, backend.streams, caller)


@router.get("/jobs/{job_id}/metrics")
async def list_job_metrics(
    caller: Train,
    backend: BackendDep,
    job_id: JobId,
    after: Annotated[
        int, Query(ge=-1, lt=2**62, description="Return only the metrics of higher steps.")
    ] = -1,
    limit: Annotated[
        int, Query(ge=1, le=MAX_PAGE_POINTS, description="The largest number of steps to return.")
    ] = MAX_PAGE_POINTS,
) -> MetricList:
    """Return a job's metrics by step."""
    return await backend.jobs.metrics(caller, job_id, after=after, limit=limit)


@router.get("/jobs/{job_id}/curves")
async def get_job_curves(
    caller: Train,
    backend: BackendDep,
    job_id: JobId,
    names: Annotated[
        list[str],
        Query(
            max_length=64,
            description="Return only the metrics with these names. Repeat the parameter for each name.",
        ),
    ] = [],  # noqa: B006
    points: Annotated[
        int,
        Query(
            ge=MIN_POINTS,
            le=MAX_POINTS,
            description="The largest number of points of a curve. A curve that has more is thinned: the least and the "
            "greatest value of each part of it stay, and so do the first and the last point.",
        ),
    ] = 1000,
    from_step: Annotated[int, Query(ge=0, lt=2**62, description="The first step to return.")] = 0,
    to_step: Annotated[int, Query(ge=0, lt=2**62, description="The last step to return.")] = 2**62 - 1,
) -> Curves:
    """Return a job's metrics as curves, thinned so that no extreme is lost."""
    return await backend.jobs.curves(
        caller, job_id, names=names, points=points, from_step=from_step, to_step=to_step
    )


@router.get("/jobs/{job_id}/checkpoints", responses=describe_errors(FilesOutside))
async def list_job_checkpoints(caller: Train, backend: BackendWithFiles, job_id: JobId) -> CheckpointList:
    """List the checkpoints that a fine-tuning job keeps. They are removed when the job has succeeded."""
    return await backend.jobs.checkpoints(caller, job_id)


@router.get("/jobs/{job_id}/log", response_class=Response, responses=describe_errors(FilesOutside) | LOG)
async def get_job_log(caller: Train, backend: BackendWithFiles, job_id: JobId) -> Response:
    """Return the log of a fine-tuning job as JSON lines, even while the job runs.

    When the job's files are removed, the log of the version that it made is returned.
    """
    return log_response(await backend.jobs.log(caller, job_id), job_id)


@router.post("/jobs/{job_id}/cancel", responses=describe_errors(JobStateConflict))
async def cancel_job(caller: Train, backend: BackendDep, job_id: JobId) -> JobInfo:
    """Cancel a job. A running job is `cancelling` until its worker has stopped. It is no error to repeat this."""
    return await backend.jobs.cancel(caller, job_id)


@router.post("/jobs/{job_id}/pause", responses=describe_errors(JobStateConflict))
async def pause_job(caller: Train, backend: BackendDep, job_id: JobId) -> JobInfo:
    """Pause a job. A running job is `pausing` until its worker has written a checkpoint.

    It is no error to repeat this.
    """
    return await backend.jobs.pause(caller, job_id)


@router.post("/jobs/{job_id}/resume", responses=describe_errors(JobStateConflict))
async def resume_job(caller: Train, backend: BackendDep, job_id: JobId) -> JobInfo:
    """Queue a paused job again. It continues from its checkpoint. It is no error to repeat this."""
    return await backend.jobs.resume(caller, job_id)


@router.post(
    "/jobs/{job_id}/retry",
    responses=describe_errors(JobStateConflict, InputsGone, Overloaded, DiskReserve),
)
async def retry_job(caller: Train, backend: BackendDep, job_id: JobId) -> JobInfo:
    """Retry a failed or cancelled job. It continues from its newest checkpoint, or starts again if it has none.

    Its attempts, interruptions and running time count from 0 again. If the job promotes its version, the key must
    be one that may move the alias. It is no error to repeat this.
    """
    return await backend.jobs.retry(caller, job_id)


@router.delete("/jobs/{job_id}", responses=describe_errors(JobStateConflict, FilesOutside))
async def delete_job(caller: Train, backend: BackendWithFiles, job_id: JobId) -> JobInfo:
    """Delete the files of a job that has ended: its checkpoints, logs and report.

    The job's record, its events and the version that it made are kept. `files_removed_at` says when the files were
    removed. It is no error to repeat this.
    """
    return await backend.jobs.delete(caller, job_id)


@router.get(
    "/jobs/{job_id}/report",
    response_class=Response,
    responses=describe_errors(FilesOutside)
    | {
        200: {
            "description": "The report, as one HTML page.",
            "content": {"text/html": {"schema": {"type": "string"}}},
        }
    },
)
async def get_job_report(caller: Train, backend: BackendWithFiles, job_id: JobId) -> Response:
    """Return the report of a job that has succeeded: one HTML page that loads nothing else."""
    headers = {"Content-Security-Policy": POLICY}
    return FileResponse(await backend.jobs.report(caller, job_id), media_type="text/html", headers=headers)
