"""Changes of jobs and aliases, as Server-Sent Events for all who follow them (decision 70).

    event: job       data: the job              its status, its progress, or whether it lacks a worker has changed
    event: alias     data: the alias            it was moved, locked, unlocked, removed or given away
    event: reset     data: {}                   too much has changed to tell: read the lists again

One task reads the database for all streams of the process, and only while there is one. The id of a frame is the time
up to which its stream has told everything, in milliseconds by the database's clock.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Row

from sds_clip.app.errors import ServiceError
from sds_clip.app.jobs.service import needs_a_worker
from sds_clip.app.jobs.stream import HEARTBEAT_S, POLL_S, RETRY_MS, frame
from sds_clip.app.keys import Caller
from sds_clip.app.registry.version_service import VersionService
from sds_clip.app.schemas.jobs import job_info
from sds_clip.app.store import SeenBy, Workspace
from sds_clip.app.store.paging import MAX_LIMIT, MAX_ROWS
from sds_clip.app.store.records import Alias, Job
from sds_clip.app.store.states import OPEN, JobKind
from sds_clip.app.store_threads import StoreThreads

logger = logging.getLogger(__name__)

SLACK_S = 60.0
"""No transaction takes longer from reading the clock to its commit."""
MAX_AGE_S = 3600.0
WAIT_S = 1.0
"""How often a stream looks whether it must end."""
MAX_BEHIND = 100
"""Readings that may wait for a client that reads slowly. Then its stream ends, and it comes back with its last id."""
RESET = "event: reset\ndata: {}\n\n"


@dataclass(frozen=True)
class Told:
    """A job's frame, and who may see it."""

    owner: str
    frame: str


@dataclass(frozen=True)
class Reading:
    """What has changed since the reading before."""

    at: float
    jobs: tuple[Told, ...] = ()
    aliases: tuple[Alias, ...] = ()
    too_many: bool = False
    """More jobs have changed than can be told, as when the last worker of many waiting jobs ends."""

    @property
    def has_news(self) -> bool:
        return bool(self.jobs or self.aliases or self.too_many)


@dataclass(frozen=True)
class _State:
    """What the last reading has found."""

    at: float
    jobs: dict[str, tuple[Row[Any], bool]]
    aliases: tuple[Alias, ...]


class Changes:
    """Reads what changes, for all streams of a process. Only the event loop uses it."""

    def __init__(
        self, seen_by: SeenBy, now: Callable[[], float], threads: StoreThreads, versions: VersionService
    ) -> None:
        self._seen_by = seen_by
        self._now = now
        self._threads = threads
        self._versions = versions
        self._followers: set[asyncio.Queue[Reading]] = set()
        self._beginning: set[asyncio.Queue[Reading]] = set()
        """The followers that wait for the reading with which they begin, whether or not it has news."""
        self._task: asyncio.Task[None] | None = None
        self._state: _State | None = None

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def stream(
        self, caller: Caller, last_ms: int | None, *, ending: Callable[[], bool]
    ) -> AsyncGenerator[str, None]:
        """Yield what may have changed since the frame `last_ms`, or since now, and then every change.

        Without the scope train, only aliases are told. `ending` says whether the stream must end. While the database is
        unavailable, only heartbeats are sent.
        """
        yield f"retry: {RETRY_MS}\n\n"
        has_begun, at, told_at = False, 0.0, time.monotonic()
        with self._following() as readings:
            while not ending() and (readings in self._followers or not readings.empty()):
                frames: list[str] = []
                try:
                    reading = await asyncio.wait_for(readings.get(), WAIT_S)
                    if has_begun:
                        frames = await self._frames(caller, reading)
                    else:
                        # After a reading, so that none of the later changes is missed.
                        frames = await self._first(caller, last_ms, reading.at)
                    has_begun, at = True, reading.at
                except TimeoutError:
                    if has_begun and readings.empty() and self._state is not None:
                        at = self._state.at
                except ServiceError as error:
                    if has_begun or not error.retryable:  # what this reading told would be lost
                        return
                    self._beginning.add(readings)
                if not frames and time.monotonic() - told_at >= HEARTBEAT_S:
                    frames = [": still here\n\n"]
                if frames:
                    told_at = time.monotonic()
                    yield "".join([*frames[:-1], f"id: {int(at * 1000)}\n" if at else "", frames[-1]])

    @contextlib.contextmanager
    def _following(self) -> Iterator[asyncio.Queue[Reading]]:
        readings = asyncio.Queue[Reading](MAX_BEHIND)
        self._followers.add(readings)
        self._beginning.add(readings)
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name="changes")
        try:
            yield readings
        finally:
            self._followers.discard(readings)
            self._beginning.discard(readings)
            if not self._followers and self._task is not None:
                self._task.cancel()
                self._task = self._state = None

    async def _run(self) -> None:
        while True:
            try:
                self._state, reading = await self._threads.run(self._read, self._state)
            except ServiceError:  # the store logs it
                pass
            except Exception:
                logger.exception("Changes of jobs cannot be read, so the streams that follow them end.")
                self._followers.clear()
                self._task = self._state = None
                return
            else:
                self._tell(reading)
            await asyncio.sleep(POLL_S)

    def _tell(self, reading: Reading) -> None:
        for readings in tuple(self._followers if reading.has_news else self._beginning):
            if readings.full():
                self._followers.discard(readings)
            else:
                readings.put_nowait(reading)
        self._beginning.clear()

    def _read(self, before: _State | None) -> tuple[_State, Reading]:
        store, at = self._seen_by(None), self._now()
        living = store.workers.living_queues()
        rows = store.watch.states((at if before is None else before.at) - SLACK_S)
        state = _State(
            at, {id: (row, needs_a_worker(row, living)) for id, row in rows.items()}, store.aliases.ever()
        )
        if before is None:
            return state, Reading(at)
        # A job that is gone from the open ones has ended, however long ago.
        changed = {id for id, found in state.jobs.items() if before.jobs.get(id) != found}
        changed |= {id for id, (row, _) in before.jobs.items() if id not in state.jobs and row.status in OPEN}
        aliases = tuple(alias for alias in state.aliases if alias not in before.aliases)
        if len(changed) > MAX_ROWS:
            return state, Reading(at, aliases=aliases, too_many=True)
        jobs = store.watch.among(changed)
        return state, Reading(at, tuple(_told(job, living) for job in jobs), aliases)

    async def _first(self, caller: Caller, last_ms: int | None, now: float) -> list[str]:
        since = now if last_ms is None else min(now, last_ms / 1000)
        # A new client reads its lists in any case, whose pages are no longer than this.
        most = MAX_LIMIT if last_ms is None else MAX_ROWS
        frames: list[str] = []
        if "train" in caller.scopes:
            told = await self._threads.run(self._since, self._seen_by(caller.sees), since - SLACK_S, most)
            frames = [each.frame for each in told]
        if now - since > MAX_AGE_S or len(frames) >= most:
            return [RESET]
        assert self._state is not None
        return frames + await self._of_aliases(caller, self._state.aliases)

    def _since(self, store: Workspace, at: float, limit: int) -> list[Told]:
        living = store.workers.living_queues()
        return [_told(job, living) for job in store.watch.changed_since(at, limit=limit)]

    async def _frames(self, caller: Caller, reading: Reading) -> list[str]:
        frames: list[str] = []
        if "train" in caller.scopes:
            frames = [job.frame for job in reading.jobs if caller.sees in (None, job.owner)]
            frames += [RESET] if reading.too_many else []
        return frames + await self._of_aliases(caller, reading.aliases)

    async def _of_aliases(self, caller: Caller, aliases: Sequence[Alias]) -> list[str]:
        if not aliases:
            return []
        return [frame("alias", info) for info in await self._versions.shown(caller, aliases)]


def _told(job: Job, living: Mapping[JobKind, int]) -> Told:
    return Told(job.owner, frame("job", job_info(job, no_worker=needs_a_worker(job, living))))
