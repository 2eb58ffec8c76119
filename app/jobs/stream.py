"""A job's events as Server-Sent Events: those after a given number, then new ones until the job ends.

    id: 7                                   event: progress          event: done
    event: status | message | metrics       data: {status, stage,    data: the job
    data: an event of GET /jobs/{id}/events   progress, ...}

The progress and done frames have no id, so a client that reconnects with its Last-Event-ID misses no event.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace

from pydantic import BaseModel

from sds_clip.app.errors import ServiceError
from sds_clip.app.jobs.service import JobUpdate
from sds_clip.app.schemas.jobs import EventInfo, JobProgress, job_info
from sds_clip.app.store.states import TERMINAL

EVENT_STREAM = "text/event-stream"
MAX_EVENTS_PER_READ = 200
POLL_S = 0.5
HEARTBEAT_S = 15.0
RETRY_MS = 2000


async def stream(
    read: Callable[[int], Awaitable[JobUpdate]], first: JobUpdate, after: int, *, ending: Callable[[], bool]
) -> AsyncIterator[str]:
    """Yield frames of the update that was already read, then of those that `read` returns after a number.

    `ending` says whether the stream must end, because the process is about to stop or the key was removed. While the
    database is unavailable, only heartbeats are sent.
    """
    update, last, progress, told_at = first, after, None, time.monotonic()
    yield f"retry: {RETRY_MS}\n\n"
    while True:
        events = map(EventInfo.model_validate, update.events)
        frames = [f"id: {event.id}\n{frame(event.type, event)}" for event in events]
        last = update.events[-1].number if update.events else last
        is_all = len(update.events) < MAX_EVENTS_PER_READ
        if is_all and (current := JobProgress.of(update.job, no_worker=update.no_worker)) != progress:
            progress = current
            frames.append(frame("progress", current))
        if is_all and update.job.status in TERMINAL:
            yield "".join([*frames, frame("done", job_info(update.job, no_worker=update.no_worker))])
            return
        if not frames and time.monotonic() - told_at >= HEARTBEAT_S:
            frames.append(": still here\n\n")
        if frames:
            told_at = time.monotonic()
            yield "".join(frames)
        if is_all:
            await asyncio.sleep(POLL_S)
        update = await _next(read, update, last)
        if ending():  # the client reconnects, and misses nothing
            return


async def _next(read: Callable[[int], Awaitable[JobUpdate]], before: JobUpdate, last: int) -> JobUpdate:
    """The next update, which has no events if it cannot be read at the moment."""
    try:
        return await read(last)
    except ServiceError as error:
        if not error.retryable:
            raise
        await asyncio.sleep(POLL_S)
        return replace(before, events=())


def frame(name: str, content: BaseModel) -> str:
    # JSON escapes line breaks, so one line of data is enough.
    return f"event: {name}\ndata: {content.model_dump_json()}\n\n"
