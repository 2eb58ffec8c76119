"""GET /jobs and all below it; cancel, pause, resume, retry and delete."""

from typing import Annotated, Any

from fastapi import APIRouter, Header, Query, Request, Response
from fastapi.responses import FileResponse

from app.content_type import JSON
from app.errors import DiskReserve, InputsGone, InvalidRequest, JobStateConflict, Overloaded
from app.jobs.service import JobUpdate
from app.jobs.stream import EVENT_STREAM, MAX_EVENTS_PER_READ, stream
from app.openapi import describe_errors
from app.routes.shared import READING, After, BackendDep, Limit, Train
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

router = APIRouter(tags=["jobs"], responses=describe_errors(*READING))

Number = Annotated[int, Query(ge=0, lt=2**62, description="Only those with a higher number.")]
Streamed: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "A page, or a stream for those who accept `text/event-stream`: every event with its number as "
        "id, `progress` when that changes, and `done` with the job at its end.",
        "content": {EVENT_STREAM: {"schema": {"type": "string"}}},
    },
    204: {"description": "The job has ended, and Last-Event-ID was its last event: do not connect again."},
}


@router.get("/jobs")
async def jobs(
    caller: Train,
    backend: BackendDep,
    kind: JobKind | None = None,
    status: JobStatus | None = None,
    after: After = None,
    limit: Limit = 20,
) -> JobList:
    """List jobs, the newest first."""
    return await backend.jobs.list(kind=kind, status=status, after=after, limit=limit)


@router.get("/jobs/{job_id}")
async def job(caller: Train, backend: BackendDep, job_id: str) -> JobInfo:
    """A job: how far it is, its newest metrics, every change of its status, its result or error."""
    return await backend.jobs.get(job_id)


@router.get(
    "/jobs/{job_id}/events",
    response_model=EventList,
    responses=describe_errors(Overloaded) | Streamed,
)
async def events(
    request: Request,
    caller: Train,
    backend: BackendDep,
    job_id: str,
    after: Number = 0,
    limit: Annotated[
        int, Query(ge=1, le=MAX_PAGE_EVENTS, description="Of a page; a stream has no end but the job's.")
    ] = 100,
    last_event_id: Annotated[
        str | None, Header(description="What a client that connects again has seen; comes before `after`.")
    ] = None,
) -> Response:
    """What happened to a job, as a page or as Server-Sent Events."""
    if EVENT_STREAM not in request.headers.get("accept", ""):
        content = await backend.jobs.events(job_id, after=after, limit=limit)
        return Response(content.model_dump_json(), media_type=JSON)
    seen = _number(last_event_id)
    start = after if seen is None else seen

    async def read(after: int) -> JobUpdate:
        return await backend.jobs.update_since(job_id, after, MAX_EVENTS_PER_READ)

    first = await read(start)
    if seen is not None and first.job.status in TERMINAL and not first.events:
        return Response(status_code=204)
    engine: Engine = request.app.state.engine
    frames = stream(read, first, start, ending=lambda: engine.draining)
    return EventStream(frames, backend.streams)


@router.get("/jobs/{job_id}/metrics")
async def metrics(
    caller: Train,
    backend: BackendDep,
    job_id: str,
    after: Annotated[int, Query(ge=-1, lt=2**62, description="Only those at higher steps.")] = -1,
    limit: Annotated[int, Query(ge=1, le=MAX_PAGE_POINTS)] = MAX_PAGE_POINTS,
) -> MetricList:
    """A job's curves: all metrics of a step together."""
    return await backend.jobs.metrics(job_id, after=after, limit=limit)


@router.get("/jobs/{job_id}/log", response_class=Response, responses=LOG)
async def log(caller: Train, backend: BackendDep, job_id: str) -> Response:
    """The log of a fine-tuning job's run as JSON lines, also while it runs; afterwards its version's log."""
    return LogResponse(await backend.jobs.log(job_id), job_id)


@router.post("/jobs/{job_id}/cancel", responses=describe_errors(JobStateConflict))
async def cancel(caller: Train, backend: BackendDep, job_id: str) -> JobInfo:
    """Cancel a job; one that runs is `cancelling` until its worker has stopped. Again is no error."""
    return await backend.jobs.cancel(job_id)


@router.post("/jobs/{job_id}/pause", responses=describe_errors(JobStateConflict))
async def pause(caller: Train, backend: BackendDep, job_id: str) -> JobInfo:
    """Pause a job; one that runs is `pausing` until its worker has written a checkpoint. Again is no error."""
    return await backend.jobs.pause(job_id)


@router.post("/jobs/{job_id}/resume", responses=describe_errors(JobStateConflict))
async def resume(caller: Train, backend: BackendDep, job_id: str) -> JobInfo:
    """Queue a paused job again; it goes on from its checkpoint. Again is no error."""
    return await backend.jobs.resume(job_id)


@router.post(
    "/jobs/{job_id}/retry",
    responses=describe_errors(JobStateConflict, InputsGone, Overloaded, DiskReserve),
)
async def retry(caller: Train, backend: BackendDep, job_id: str) -> JobInfo:
    """Take up a failed or cancelled job from its newest checkpoint, or from the start where there is none.

    Its attempts, interruptions and running time count from 0 again. A job that promotes needs the scope admin.
    Again is no error.
    """
    return await backend.jobs.retry(job_id, caller)


@router.delete("/jobs/{job_id}", responses=describe_errors(JobStateConflict))
async def delete_job(caller: Train, backend: BackendDep, job_id: str) -> JobInfo:
    """Remove the files of a job that has ended: checkpoints, logs, report. Again is no error.

    Its record, its events and the version that it made stay; `files_removed_at` says that the files are gone.
    """
    return await backend.jobs.delete(job_id)


@router.get(
    "/jobs/{job_id}/report",
    response_class=Response,
    responses={200: {"description": "The page.", "content": {"text/html": {"schema": {"type": "string"}}}}},
)
async def report(caller: Train, backend: BackendDep, job_id: str) -> Response:
    """An evaluation's results as a page that needs nothing else."""
    headers = {"Content-Security-Policy": POLICY, "X-Content-Type-Options": "nosniff"}
    return FileResponse(await backend.jobs.report(job_id), media_type="text/html", headers=headers)


def _number(last_event_id: str | None) -> int | None:
    if last_event_id is None or last_event_id == "":
        return None
    if not (last_event_id.isascii() and last_event_id.isdecimal()) or len(last_event_id) > 18:
        raise InvalidRequest("Last-Event-ID is an event's number.", param="Last-Event-ID")
    return int(last_event_id)
