"""GET /jobs and all below it; cancel, pause, resume, retry and delete."""

from typing import Annotated, Any

from fastapi import APIRouter, Header, Query, Request, Response
from fastapi.responses import FileResponse

from app.auth import is_revoked
from app.content_type import JSON
from app.errors import AmbiguousName, DiskReserve, InputsGone, InvalidRequest, JobStateConflict, Overloaded
from app.jobs.service import JobUpdate
from app.jobs.stream import EVENT_STREAM, MAX_EVENTS_PER_READ, stream
from app.openapi import describe_errors
from app.routes.shared import READING, After, BackendDep, JobId, Limit, Owner, SearchDep, Train
from app.routes.streamed import LOG, EventStream, LogResponse
from app.schemas.jobs import EventList, JobInfo, JobList, MetricList
from app.serving.engine import Engine
from app.store.states import TERMINAL, JobKind, JobStatus

POLICY = (
    "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'; sandbox"
)
"""For a report, whose captions are untrusted: no scripts, no requests, no origin."""
MAX_PAGE_EVENTS = 500
MAX_PAGE_POINTS = 900

router = APIRouter(tags=["jobs"], responses=describe_errors(*READING, AmbiguousName))

Number = Annotated[int, Query(ge=0, lt=2**62, description="Return only events with a higher number.")]
Streamed: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "A page of events or, if the request accepts `text/event-stream`, a stream. The stream "
        "sends every event with its number as id, `progress` whenever the progress changes, and `done` "
        "with the job when the job has ended.",
        "content": {EVENT_STREAM: {"schema": {"type": "string"}}},
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
    """List jobs, newest first."""
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
    job_id: JobId,
    after: Number = 0,
    limit: Annotated[
        int,
        Query(
            ge=1,
            le=MAX_PAGE_EVENTS,
            description="The largest number of events on a page. A stream ignores it.",
        ),
    ] = 100,
    last_event_id: Annotated[
        str | None,
        Header(
            description="The number of the last event that a reconnecting client has seen. It takes precedence "
            "over `after`."
        ),
    ] = None,
) -> Response:
    """Return what happened to a job, as a page or as a stream of Server-Sent Events."""
    if EVENT_STREAM not in request.headers.get("accept", ""):
        content = await backend.jobs.events(caller, job_id, after=after, limit=limit)
        return Response(content.model_dump_json(), media_type=JSON)
    seen = _number(last_event_id)
    start = after if seen is None else seen

    async def read(after: int) -> JobUpdate:
        return await backend.jobs.update_since(caller, job_id, after, MAX_EVENTS_PER_READ)

    first = await read(start)
    if seen is not None and first.job.status in TERMINAL and not first.events:
        return Response(status_code=204)
    engine: Engine = request.app.state.engine
    frames = stream(read, first, start, ending=lambda: engine.draining or is_revoked(request, caller))
    return EventStream(frames, backend.streams, caller)


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


@router.get("/jobs/{job_id}/log", response_class=Response, responses=LOG)
async def get_job_log(caller: Train, backend: BackendDep, job_id: JobId) -> Response:
    """Return the log of a fine-tuning job as JSON lines, even while the job runs.

    When the job's files are removed, the log of the version that it made is returned.
    """
    return LogResponse(await backend.jobs.log(caller, job_id), job_id)


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


@router.delete("/jobs/{job_id}", responses=describe_errors(JobStateConflict))
async def delete_job(caller: Train, backend: BackendDep, job_id: JobId) -> JobInfo:
    """Delete the files of a job that has ended: its checkpoints, logs and report.

    The job's record, its events and the version that it made are kept. `files_removed_at` says when the files were
    removed. It is no error to repeat this.
    """
    return await backend.jobs.delete(caller, job_id)


@router.get(
    "/jobs/{job_id}/report",
    response_class=Response,
    responses={
        200: {
            "description": "The report, as one HTML page.",
            "content": {"text/html": {"schema": {"type": "string"}}},
        }
    },
)
async def get_job_report(caller: Train, backend: BackendDep, job_id: JobId) -> Response:
    """Return the report of a job that has succeeded: one HTML page that loads nothing else."""
    headers = {"Content-Security-Policy": POLICY, "X-Content-Type-Options": "nosniff"}
    return FileResponse(await backend.jobs.report(caller, job_id), media_type="text/html", headers=headers)


def _number(last_event_id: str | None) -> int | None:
    if last_event_id is None or last_event_id == "":
        return None
    if not (last_event_id.isascii() and last_event_id.isdecimal()) or len(last_event_id) > 18:
        raise InvalidRequest("Last-Event-ID must be the number of an event.", param="Last-Event-ID")
    return int(last_event_id)
