"""A job's events as Server-Sent Events: what happened since a number, then what happens, until the job ends.

    id: 7                                   event: progress          event: done
    event: status | message | metrics       data: {status, stage,    data: the job
    data: an event of GET /jobs/{id}/events   progress, ...}

Progress and the end have no id, so a client that comes back with its Last-Event-ID misses no event.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace

from pydantic import BaseModel
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from app.errors import ServiceError
from app.jobs.service import JobUpdate
from app.places import Places
from app.schemas.jobs import EventInfo, Progress, job_info, progress_of
from app.store.states import TERMINAL, JobStatus

EVENT_STREAM = "text/event-stream"
MAX_EVENTS_PER_READ = 200
POLL_S = 0.5
HEARTBEAT_S = 15.0
RETRY_MS = 2000


class ProgressInfo(BaseModel):
    """How far a job is."""

    status: JobStatus
    stage: str | None
    progress: Progress
    attempt: int
    estimated_finish: float | None
    no_worker: bool

    @classmethod
    def of(cls, update: JobUpdate) -> "ProgressInfo":
        """As a caller sees it."""
        job = update.job
        return cls(
            status=job.status,
            stage=job.stage,
            progress=progress_of(job),
            attempt=job.attempt,
            estimated_finish=job.estimated_finish,
            no_worker=update.no_worker,
        )


class EventStream(StreamingResponse):
    """The answer; it has one of the places while it is being sent, and gives it back however it ends.

    Raises Overloaded, before anything is sent, where there is no place.
    """

    def __init__(self, content: AsyncIterator[str], places: Places) -> None:
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        super().__init__(content, media_type=EVENT_STREAM, headers=headers)
        self._places = places

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send until the job ends or the client goes."""
        with self._places.one():
            await super().__call__(scope, receive, send)


async def stream(
    read: Callable[[int], Awaitable[JobUpdate]], first: JobUpdate, after: int, *, ending: Callable[[], bool]
) -> AsyncIterator[str]:
    """Frames from the update that were read already, then from those that `read` finds after an event's number.

    `ending` says that the process is about to stop.

    While the database is away there is nothing but heartbeats.
    """
    update, last, progress, told_at = first, after, None, time.monotonic()
    yield f"retry: {RETRY_MS}\n\n"
    while True:
        frames = [_event(EventInfo.model_validate(event)) for event in update.events]
        last = update.events[-1].number if update.events else last
        is_all = len(update.events) < MAX_EVENTS_PER_READ
        if is_all and (current := ProgressInfo.of(update)) != progress:
            progress = current
            frames.append(_frame("progress", current))
        if is_all and update.job.status in TERMINAL:
            yield "".join([*frames, _frame("done", job_info(update.job, no_worker=update.no_worker))])
            return
        if not frames and time.monotonic() - told_at >= HEARTBEAT_S:
            frames.append(": still here\n\n")
        if frames:
            told_at = time.monotonic()
            yield "".join(frames)
        if ending():  # the client comes back, to a process that stays
            return
        if is_all:
            await asyncio.sleep(POLL_S)
        update = await _next(read, update, last)


async def _next(read: Callable[[int], Awaitable[JobUpdate]], before: JobUpdate, last: int) -> JobUpdate:
    """What is new; nothing where it cannot be read at the moment."""
    try:
        return await read(last)
    except ServiceError as error:
        if not error.retryable:
            raise
        await asyncio.sleep(POLL_S)
        return replace(before, events=())


def _event(event: EventInfo) -> str:
    return f"id: {event.id}\n{_frame(event.type, event)}"


def _frame(name: str, content: BaseModel) -> str:
    # JSON has no line breaks of its own, so that one line of data is enough.
    return f"event: {name}\ndata: {content.model_dump_json()}\n\n"
