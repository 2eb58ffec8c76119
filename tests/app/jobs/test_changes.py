"""The stream of all changes, over a real database."""

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, cast

import pytest

from sds_clip.app.jobs import changes
from sds_clip.app.jobs.changes import Changes
from sds_clip.app.keys import Caller
from sds_clip.app.registry.service import VersionService
from sds_clip.app.store import Store
from sds_clip.app.store.records import Job, Lease, NewJob, NewWorker
from sds_clip.app.store.states import JobKind
from sds_clip.app.store_threads import StoreThreads
from tests.app.jobs.streamed import CONFIG
from tests.app.store.conftest import register, to
from tests.databases import held, on_both

Answer = TypeVar("Answer")
ALICE, ROOT = Caller("alice", frozenset({"infer", "train"})), Caller("root")


class Frame(NamedTuple):
    """One event."""

    name: str
    data: dict[str, Any]
    id: int | None

    @property
    def shown(self) -> tuple[str, str]:
        """The job and its status, or the alias and its version."""
        job = self.name == "job"
        return self.data["id" if job else "name"], self.data["status" if job else "version"]


@pytest.fixture
def store(database_url: str) -> Iterator[Store]:
    store = Store(database_url, timeout_s=0.2)
    yield store
    store.close()


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(changes, "POLL_S", 0.01)
    monkeypatch.setattr(changes, "WAIT_S", 0.05)


class Followed:
    """A service's changes, and streams of them."""

    def __init__(self, store: Store) -> None:
        self.threads = StoreThreads(4)
        self.threads.open = True
        versions = VersionService(store.seen_by, self.threads, cast(Any, None), Path())
        self.changes = Changes(store.seen_by, store.now, self.threads, versions)
        self.ending = False

    async def frames(self, caller: Caller = ROOT, last: int | None = None) -> AsyncGenerator[Frame, None]:
        """The events of a stream, which ends with the block that reads it."""
        async with aclosing(self.changes.stream(caller, last, ending=lambda: self.ending)) as texts:
            async for text in texts:
                for block in text.split("\n\n"):
                    fields = dict(line.split(": ", 1) for line in block.splitlines() if line[0] != ":")
                    if "event" in fields:
                        at = int(fields["id"]) if "id" in fields else None
                        yield Frame(fields["event"], json.loads(fields["data"]), at)


def following(store: Store, use: Callable[[Followed], Awaitable[Answer]]) -> Answer:
    async def run() -> Answer:
        followed = Followed(store)
        async with asyncio.timeout(60):
            answer = await use(followed)
        await followed.changes.close()
        followed.threads.close()
        return answer

    return asyncio.run(run())


def new_job(store: Store, owner: str = "alice") -> Job:
    return store.jobs.submit(NewJob(JobKind.FINETUNE, {}, config=CONFIG, owner=owner))[0]


def claim(store: Store) -> Lease:
    job = store.leases.claim(JobKind.FINETUNE, "slot", 60)
    assert job is not None
    return Lease.of(job)


def begun(store: Store) -> str:
    """An alias, with whose frame each stream begins."""
    register(store, "a", "b")
    store.aliases.promote(to(), "a")
    return "a"


async def began(frames: AsyncIterator[Frame]) -> Frame:
    """The frame with which the beginning of a stream ends."""
    return await anext(frame async for frame in frames if frame.name == "alias")


@on_both
def test_every_status_of_a_job_and_its_progress_are_told(store: Store) -> None:
    begun(store)

    async def use(followed: Followed) -> list[Any]:
        async with aclosing(followed.frames()) as frames:
            assert (await anext(frames)).name == "alias"
            job = new_job(store)
            seen = [(await anext(frames)).shown]
            lease = claim(store)
            seen.append((await anext(frames)).shown)
            store.leases.progress(lease, stage="training", step=3, steps=9)
            told = await anext(frames)
            assert (told.data["stage"], told.data["progress"]["step"]) == ("training", 3)
            store.leases.succeed(lease, result={"steps": 9})
            seen.append((await anext(frames)).shown)
            return [(id == job.id, status) for id, status in seen]

    assert following(store, use) == [(True, "queued"), (True, "running"), (True, "succeeded")]


@on_both
def test_alias_that_is_moved_locked_or_removed_is_told(store: Store) -> None:
    begun(store)

    async def use(followed: Followed) -> list[Any]:
        async with aclosing(followed.frames()) as frames:
            seen = [(await anext(frames)).shown]
            store.aliases.promote(to(), "b")
            seen.append((await anext(frames)).shown)
            store.aliases.lock("default", "root", "a freeze")
            seen.append((await anext(frames)).data["lock"]["why"])
            store.aliases.promote(to("live"), "b")
            seen.append((await anext(frames)).shown)
            removed = store.aliases.remove(to("live"))
            assert (await anext(frames)).data["removed_at"] == removed.removed_at
            return seen

    assert following(store, use) == [("default", "a"), ("default", "b"), "a freeze", ("live", "b")]


@on_both
def test_client_that_comes_back_is_told_of_every_job_that_changed_meanwhile(store: Store) -> None:
    begun(store)
    ends, runs, waits, retried = (new_job(store) for _ in range(4))

    async def use(followed: Followed) -> dict[str, str]:
        async with aclosing(followed.frames()) as frames:
            last = (await began(frames)).id
            assert last is not None
        # Without this stream and, as far as the store knows, without the service.
        store.jobs.request_cancel(retried.id)
        store.leases.succeed(claim(store))
        claim(store)
        store.jobs.request_retry(retried.id)
        seen = dict[str, str]()
        async with aclosing(Followed(store).frames(last=last)) as frames:
            async for frame in frames:
                if frame.name == "alias":
                    return seen
                seen |= [frame.shown]
        return seen

    seen = following(store, use)

    assert {job.id: seen.get(job.id) for job in (ends, runs, retried)} == {
        ends.id: "succeeded",
        runs.id: "running",
        retried.id: "queued",
    }
    assert seen.get(waits.id) in (None, "queued")


@on_both
def test_database_that_was_away_hides_no_end_of_a_job(
    store: Store, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun(store)
    job = new_job(store)
    lease = claim(store)
    monkeypatch.setattr(changes, "HEARTBEAT_S", 0.05)
    monkeypatch.setattr(changes, "SLACK_S", 0.0)

    async def use(followed: Followed) -> tuple[str, str]:
        async with aclosing(followed.frames()) as frames:
            await began(frames)
            with held(database_url):
                await asyncio.sleep(0.5)
            store.leases.succeed(lease)
            return (await anext(frames)).shown

    assert following(store, use) == (job.id, "succeeded")


@on_both
def test_key_is_told_of_its_own_jobs_only_and_without_train_of_none(store: Store) -> None:
    begun(store)
    hers, his = new_job(store), new_job(store, "bob")

    async def use(followed: Followed) -> list[Any]:
        reader = Caller("reader", frozenset({"infer"}))
        async with (
            aclosing(followed.frames(ALICE)) as alices,
            aclosing(followed.frames(reader)) as readers,
        ):
            await began(alices)
            assert (await anext(readers)).name == "alias"
            for job in (his, hers):
                store.jobs.request_cancel(job.id)
            store.aliases.promote(to(), "b")
            told = await anext(alices)
            while told.shown == (hers.id, "queued"):
                told = await anext(alices)
            return [told.shown, (await anext(readers)).shown]

    assert following(store, use) == [(hers.id, "cancelled"), ("default", "b")]


def test_client_that_was_away_for_too_long_is_told_to_read_its_lists(store: Store) -> None:
    begun(store)

    async def use(followed: Followed) -> Frame:
        async with aclosing(followed.frames(last=1_000)) as frames:
            return await anext(frames)

    told = following(store, use)

    assert told.name == "reset"
    assert told.id is not None
    assert abs(told.id / 1000 - store.now()) < 60


@on_both
def test_new_client_is_told_to_read_its_lists_where_many_jobs_have_just_changed(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(changes, "MAX_LIMIT", 3)
    begun(store)
    for _ in range(4):
        new_job(store)

    async def use(followed: Followed) -> list[list[str]]:
        async with aclosing(followed.frames()) as new:
            told = [(await anext(new)).name]
            new_job(store)
            told.append((await anext(new)).name)
        async with aclosing(followed.frames(last=int(store.now() * 1000))) as back:
            return [told, [(await anext(back)).name for _ in range(5)]]

    assert following(store, use) == [["reset", "job"], ["job"] * 5]


def test_change_of_more_jobs_than_can_be_told_is_told_as_such(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(changes, "MAX_ROWS", 3)
    begun(store)

    async def use(followed: Followed) -> list[str]:
        async with (
            aclosing(followed.frames()) as frames,
            aclosing(followed.frames(Caller("reader", frozenset({"infer"})))) as readers,
        ):
            told = [(await anext(each)).name for each in (frames, readers)]
            for _ in range(4):
                new_job(store)
                told.append((await anext(frames)).name)
            store.workers.beat(NewWorker("slot", "host", 7, JobKind.FINETUNE, "cpu", "1.0", 5.0))
            told.append((await anext(frames)).name)
            store.aliases.promote(to(), "b")
            return [*told, (await anext(readers)).name]

    assert following(store, use) == ["alias", "alias", *["job"] * 4, "reset", "alias"]


def test_job_that_loses_its_worker_is_told(store: Store) -> None:
    begun(store)

    async def use(followed: Followed) -> list[bool]:
        async with aclosing(followed.frames()) as frames:
            await anext(frames)
            new_job(store)
            seen = [(await anext(frames)).data["no_worker"]]
            store.workers.beat(NewWorker("slot", "host", 7, JobKind.FINETUNE, "cpu", "1.0", 5.0))
            return [*seen, (await anext(frames)).data["no_worker"]]

    assert following(store, use) == [True, False]


def test_many_streams_cost_one_reading_and_none_is_read_without_a_stream(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun(store)
    read = Changes._read
    readings: list[Any] = []

    def counted(*given: Any) -> Any:
        readings.append(given)
        return read(*given)

    monkeypatch.setattr(Changes, "_read", counted)

    async def use(followed: Followed) -> tuple[int, int]:
        streams = [followed.frames() for _ in range(50)]
        for frames in streams:
            await anext(frames)
        began = len(readings)
        store.aliases.promote(to(), "b")
        await asyncio.gather(*(anext(frames) for frames in streams))
        took = len(readings) - began
        for frames in streams:
            await frames.aclose()
        await asyncio.sleep(0.1)
        ended = len(readings)
        await asyncio.sleep(0.2)
        return took, len(readings) - ended

    took, after = following(store, use)

    assert took < 50
    assert after == 0


def test_client_that_reads_too_slowly_is_left(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    begun(store)
    monkeypatch.setattr(changes, "MAX_BEHIND", 2)

    async def use(followed: Followed) -> int:
        async with aclosing(followed.frames()) as frames:
            await anext(frames)
            while followed.changes._followers:
                new_job(store)
                await asyncio.sleep(0.01)
            # The last frame of each reading has an id.
            return len([frame async for frame in frames if frame.id is not None])

    assert following(store, use) <= 3


def test_stream_ends_with_its_key(store: Store) -> None:
    begun(store)

    async def use(followed: Followed) -> list[str]:
        async with aclosing(followed.frames()) as frames:
            await anext(frames)
            followed.ending = True
            return [frame.name async for frame in frames]

    assert following(store, use) == []


def test_mistake_in_a_reading_ends_the_streams_and_a_new_one_begins_again(
    store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    begun(store)

    async def use(followed: Followed) -> Frame:
        async with aclosing(followed.frames()) as frames:
            await began(frames)
            with monkeypatch.context() as patched:
                patched.setattr(Changes, "_read", lambda *_: 1 / 0)
                assert [frame async for frame in frames] == []
        async with aclosing(followed.frames()) as frames:
            return await began(frames)

    assert following(store, use).name == "alias"
    assert "cannot be read" in caplog.text
