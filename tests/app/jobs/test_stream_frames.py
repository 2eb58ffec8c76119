"""The frames of a stream, one by one, over a real database."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import pytest

from sds_clip.app.jobs import stream as streams
from sds_clip.app.jobs.service import JobService, JobUpdate
from sds_clip.app.jobs.stream import stream
from sds_clip.app.jobs.waker import Waker
from sds_clip.app.keys import Caller
from sds_clip.app.store import Store
from sds_clip.app.store.records import Job, NewWorker
from sds_clip.app.store.states import JobKind
from sds_clip.app.store_threads import StoreThreads
from tests.app.jobs.streamed import claim, submit
from tests.databases import held, on_both


@pytest.fixture
def store(database_url: str) -> Iterator[Store]:
    store = Store(database_url, timeout_s=0.5)
    yield store
    store.close()


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "POLL_S", 0.005)
    monkeypatch.setattr(streams, "HEARTBEAT_S", 0.02)


@asynccontextmanager
async def following(store: Store, job: Job) -> AsyncIterator[AsyncIterator[str]]:
    """The frames of a job's stream."""
    threads = StoreThreads(2)
    threads.open = True
    service = JobService(store.seen_by, threads, Waker(None), cast(Any, None), Path())

    async def read(after: int) -> JobUpdate:
        return await service.update_since(Caller(), job.id, after, streams.MAX_EVENTS_PER_READ)

    async with asyncio.timeout(20):
        yield stream(read, await read(0), 0, ending=lambda: False)
    threads.close()


@on_both
async def test_silence_is_broken_by_comments_that_no_client_takes_for_news(store: Store) -> None:
    async with following(store, submit(store)) as frames:
        assert await anext(frames) == "retry: 2000\n\n"
        assert (await anext(frames)).startswith("id: 1\nevent: status\ndata: {")
        assert [await anext(frames) for _ in range(2)] == [": still here\n\n"] * 2


@on_both
async def test_stream_outlives_a_database_that_is_away(store: Store, database_url: str) -> None:
    job = submit(store)
    async with following(store, job) as frames:
        await anext(frames), await anext(frames)
        with held(database_url):
            assert await anext(frames) == ": still here\n\n"
        store.jobs.request_cancel(job.id)
        assert "event: done" in [frame async for frame in frames][-1]


@on_both
async def test_progress_is_told_once_for_each_change(store: Store) -> None:
    job = submit(store)
    lease = claim(store)
    async with following(store, job) as frames:
        for step in (1, 1, 2):
            store.leases.progress(lease, stage="training", step=step, steps=2)
            await anext(frames)
        store.leases.succeed(lease)
        text = "".join([frame async for frame in frames])

    assert text.count("event: progress") <= 2
    assert text.rstrip().splitlines()[-2] == "event: done"


@on_both
async def test_progress_says_that_no_worker_is_alive(store: Store) -> None:
    async with following(store, submit(store)) as frames:
        await anext(frames)
        assert '"no_worker":true' in await anext(frames)
        store.workers.beat(NewWorker("slot", "host", 7, JobKind.FINETUNE, "cpu", "1.0", 5.0))
        told = await anext(frame async for frame in frames if "event: progress" in frame)
        assert '"no_worker":false' in told
