"""GET /events."""

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response

from sds_clip.app.edge.auth import is_revoked
from sds_clip.app.edge.openapi import describe_errors
from sds_clip.app.errors import Overloaded
from sds_clip.app.routes.shared import READING, BackendDep, EngineDep, LastEventId, ReadOrTrain
from sds_clip.app.routes.streamed import FRAMES, event_stream

Streamed: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "A stream of Server-Sent Events. `job` has a job as in GET /jobs, and `alias` an alias as in "
        "GET /models. `reset` means that the client was away for too long, or that more jobs have changed than the "
        "stream tells: read the lists again.",
        "content": FRAMES,
    }
}

router = APIRouter(tags=["jobs"], responses=describe_errors(*READING, Overloaded) | Streamed)


@router.get("/events", response_class=Response)
async def follow_changes(
    request: Request,
    caller: ReadOrTrain,
    backend: BackendDep,
    engine: EngineDep,
    after: Annotated[
        int | None,
        Query(
            ge=0,
            lt=2**62,
            description="The id of the last event that you have seen, for clients that cannot send Last-Event-ID.",
        ),
    ] = None,
    last_event_id: LastEventId = None,
) -> Response:
    """Follow all jobs that you see and all aliases, as a stream of Server-Sent Events.

    It sends a job whenever its status or its progress changes, and an alias whenever it is moved, locked, unlocked or
    removed. It begins with all aliases, also removed ones, and with the jobs that may have changed since Last-Event-ID,
    so that a client that comes back misses no change. Without one, these are the few that have just changed. Open the
    stream first, and then read the lists. Jobs are told to keys with the scope train.
    """
    seen = after if last_event_id is None else last_event_id
    frames = backend.changes.stream(
        caller, seen, ending=lambda: engine.draining or is_revoked(request, caller)
    )
    return event_stream(frames, backend.streams, caller)
