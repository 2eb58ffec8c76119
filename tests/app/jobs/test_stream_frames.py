"""The frames of a stream, one by one, over a real database."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar, cast

import pytest

from sds_clip.app.jobs import stream as streams
from sds_clip.app.jobs.service import JobService, JobUpdate
from sds_clip.app.jobs.stream import stream
from sds_clip.app.jobs.waker import Waker
from sds_clip.app.keys import Caller
from sds_clip.app.store import Store
from sds_clip.app.store.records import Job, Lease, NewJob, NewWorker
from sds_clip.app.store.states import JobKind
from sds_clip.app.store_threads import StoreThreads
from tests.app.jobs.streamed import CONFIG
from tests.databases import held, on_both

Answer = TypeVar("Answer")


@pytest.fixture
def store(database_url: str) -> Iterator[Store]:
    store = Store(database_url, timeout_s=0.5)
    yield store
    store.close()


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "POLL_S", 0.005)
    monkeypatch.setattr(streams, "HEARTBEAT_S", 0.02)


def following(store: Store, use: Callable[[AsyncIterator[str]], Awaitable[Answer]], job: Job) -> Answer:
    """Run `use` on the frames of a job's stream."""

    async def run() -> Answer:
        threads = StoreThreads(2)
        threads.open = True
        service = JobService(store.seen_by, threads, Waker(None), cast(Any, None), Path())

        async def read(after: int) -> JobUpdate:
            return await service.update_since(Caller(), job.id, after, streams.MAX_EVENTS_PER_READ)

        async with asyncio.timeout(20):
            answer = await use(stream(read, await read(0), 0, ending=lambda: False))
        threads.close()
        return answer

    return asyncio.run(run())


def new_job(store: Store) -> Job:
    return store.jobs.submit(NewJob(JobKind.FINETUNE, {}, config=CONFIG))[0]


def claim(store: Store) -> Lease:
    job = store.leases.claim(JobKind.FINETUNE, "slot", 60)
    assert job is not None
    return Lease.of(job)


@on_both
def test_silence_is_broken_by_comments_that_no_client_takes_for_news(store: Store) -> None:
    async def third(frames: AsyncIterator[str]) -> list[str]:
        return [await anext(frames) for _ in range(4)]

    retry, first, *rest = following(store, third, new_job(store))

    assert retry == "retry: 2000\n\n"
    assert first.startswith("id: 1\nevent: status\ndata: {")
    assert rest == [": still here\n\n"] * 2


@on_both
def test_stream_outlives_a_database_that_is_away(store: Store, database_url: str) -> None:
    job = new_job(store)

    async def use(frames: AsyncIterator[str]) -> list[str]:
        seen = [await anext(frames), await anext(frames)]
        with held(database_url):
            seen.append(await anext(frames))
        store.jobs.request_cancel(job.id)
        return [*seen, *[frame async for frame in frames]]

    seen = following(store, use, job)

    assert seen[2] == ": still here\n\n"
    assert "event: done" in seen[-1]


@on_both
def test_progress_is_told_once_for_each_change(store: Store) -> None:
    job = new_job(store)
    lease = claim(store)

    async def use(frames: AsyncIterator[str]) -> str:
        for step in (1, 1, 2):
            store.leases.progress(lease, stage="training", step=step, steps=2)
            await anext(frames)
        store.leases.succeed(lease)
        return "".join([frame async for frame in frames])

    text = following(store, use, job)

    assert text.count("event: progress") <= 2
    assert text.rstrip().splitlines()[-2] == "event: done"


@on_both
def test_progress_says_that_no_worker_is_alive(store: Store) -> None:
    job = new_job(store)

    async def use(frames: AsyncIterator[str]) -> list[str]:
        seen = [await anext(frames), await anext(frames)]
        store.workers.beat(NewWorker("slot", "host", 7, JobKind.FINETUNE, "cpu", "1.0", 5.0))
        async for frame in frames:
            if "event: progress" in frame:
                return [*seen, frame]
        return seen

    _, first, second = following(store, use, job)

    assert '"no_worker":true' in first
    assert '"no_worker":false' in second
