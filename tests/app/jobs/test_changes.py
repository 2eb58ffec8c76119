"""The stream of all changes, over a real database."""

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple, cast

import pytest

from sds_clip.app.jobs import changes
from sds_clip.app.jobs.changes import Changes
from sds_clip.app.keys import Caller
from sds_clip.app.registry.version_service import VersionService
from sds_clip.app.store import Store
from sds_clip.app.store.records import NewWorker
from sds_clip.app.store.states import JobKind
from sds_clip.app.store_threads import StoreThreads
from tests.app.jobs.streamed import claim, submit
from tests.app.store.conftest import register, to
from tests.databases import held, on_both

ALICE, ROOT = Caller("alice", frozenset({"infer", "train"})), Caller("root")
READER = Caller("reader", frozenset({"infer"}))
WORKER = NewWorker("slot", "host", 7, JobKind.FINETUNE, "cpu", "1.0", 5.0)


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
    """With an alias, with whose frame each stream begins."""
    store = Store(database_url, timeout_s=0.2)
    register(store, "a", "b")
    store.aliases.promote(to(), "a")
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


@asynccontextmanager
async def services(store: Store) -> AsyncIterator[Followed]:
    followed = Followed(store)
    async with asyncio.timeout(60):
        yield followed
    await followed.changes.close()
    followed.threads.close()


@asynccontextmanager
async def following(store: Store, **options: Any) -> AsyncIterator[AsyncGenerator[Frame, None]]:
    """The frames of a stream."""
    async with services(store) as followed, aclosing(followed.frames(**options)) as frames:
        yield frames


async def began(frames: AsyncIterator[Frame]) -> Frame:
    """The frame with which the beginning of a stream ends."""
    return await anext(frame async for frame in frames if frame.name == "alias")


@on_both
async def test_every_status_of_a_job_and_its_progress_are_told(store: Store) -> None:
    async with following(store) as frames:
        assert (await anext(frames)).name == "alias"
        job = submit(store)
        assert (await anext(frames)).shown == (job.id, "queued")
        lease = claim(store)
        assert (await anext(frames)).shown == (job.id, "running")
        store.leases.progress(lease, stage="training", step=3, steps=9)
        told = await anext(frames)
        assert (told.data["stage"], told.data["progress"]["step"]) == ("training", 3)
        store.leases.succeed(lease, result={"steps": 9})
        assert (await anext(frames)).shown == (job.id, "succeeded")


@on_both
async def test_alias_that_is_moved_locked_or_removed_is_told(store: Store) -> None:
    async with following(store) as frames:
        assert (await anext(frames)).shown == ("default", "a")
        store.aliases.promote(to(), "b")
        assert (await anext(frames)).shown == ("default", "b")
        store.aliases.lock("default", "root", "a freeze")
        assert (await anext(frames)).data["lock"]["why"] == "a freeze"
        store.aliases.promote(to("live"), "b")
        assert (await anext(frames)).shown == ("live", "b")
        removed = store.aliases.remove(to("live"))
        assert (await anext(frames)).data["removed_at"] == removed.removed_at


@on_both
async def test_client_that_comes_back_is_told_of_every_job_that_changed_meanwhile(store: Store) -> None:
    ends, runs, waits, retried = (submit(store).id for _ in range(4))
    async with following(store) as frames:
        last = (await began(frames)).id
    assert last is not None
    # Without this stream and, as far as the store knows, without the service.
    store.jobs.request_cancel(retried)
    store.leases.succeed(claim(store))
    claim(store)
    store.jobs.request_retry(retried)
    seen = dict[str, str]()
    async with following(store, last=last) as frames:
        while (frame := await anext(frames)).name != "alias":
            seen |= [frame.shown]

    assert seen.pop(waits, "queued") == "queued"
    assert seen == {ends: "succeeded", runs: "running", retried: "queued"}


@on_both
async def test_database_that_was_away_hides_no_end_of_a_job(
    store: Store, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = submit(store)
    lease = claim(store)
    monkeypatch.setattr(changes, "HEARTBEAT_S", 0.05)
    monkeypatch.setattr(changes, "SLACK_S", 0.0)

    async with following(store) as frames:
        await began(frames)
        with held(database_url):
            await asyncio.sleep(0.5)
        store.leases.succeed(lease)
        assert (await anext(frames)).shown == (job.id, "succeeded")


@on_both
async def test_key_is_told_of_its_own_jobs_only_and_without_train_of_none(store: Store) -> None:
    hers, his = submit(store, owner="alice"), submit(store, owner="bob")
    async with (
        services(store) as followed,
        aclosing(followed.frames(ALICE)) as alices,
        aclosing(followed.frames(READER)) as readers,
    ):
        await began(alices)
        assert (await anext(readers)).name == "alias"
        for job in (his, hers):
            store.jobs.request_cancel(job.id)
        store.aliases.promote(to(), "b")
        while (told := await anext(alices)).shown == (hers.id, "queued"):
            pass
        assert told.shown == (hers.id, "cancelled")
        assert (await anext(readers)).shown == ("default", "b")


async def test_client_that_was_away_for_too_long_is_told_to_read_its_lists(store: Store) -> None:
    async with following(store, last=1_000) as frames:
        told = await anext(frames)

    assert told.name == "reset"
    assert told.id is not None
    assert abs(told.id / 1000 - store.now()) < 60


@on_both
async def test_new_client_is_told_to_read_its_lists_where_many_jobs_have_just_changed(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(changes, "MAX_LIMIT", 3)
    for _ in range(4):
        submit(store)
    async with services(store) as followed:
        async with aclosing(followed.frames()) as new:
            assert (await anext(new)).name == "reset"
            submit(store)
            assert (await anext(new)).name == "job"
        async with aclosing(followed.frames(last=int(store.now() * 1000))) as back:
            assert [(await anext(back)).name for _ in range(5)] == ["job"] * 5


async def test_change_of_more_jobs_than_can_be_told_is_told_as_such(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(changes, "MAX_ROWS", 3)
    async with (
        services(store) as followed,
        aclosing(followed.frames()) as frames,
        aclosing(followed.frames(READER)) as readers,
    ):
        assert [(await anext(each)).name for each in (frames, readers)] == ["alias", "alias"]
        for _ in range(4):
            submit(store)
            assert (await anext(frames)).name == "job"
        store.workers.beat(WORKER)
        assert (await anext(frames)).name == "reset"
        store.aliases.promote(to(), "b")
        assert (await anext(readers)).name == "alias"


async def test_job_that_loses_its_worker_is_told(store: Store) -> None:
    async with following(store) as frames:
        await anext(frames)
        submit(store)
        assert (await anext(frames)).data["no_worker"]
        store.workers.beat(WORKER)
        assert not (await anext(frames)).data["no_worker"]


async def test_many_streams_cost_one_reading_and_none_is_read_without_a_stream(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = Changes._read
    readings: list[Any] = []

    def counted(*given: Any) -> Any:
        readings.append(given)
        return read(*given)

    monkeypatch.setattr(Changes, "_read", counted)
    async with services(store) as followed:
        streams = [followed.frames() for _ in range(50)]
        for frames in streams:
            await anext(frames)
        before = len(readings)
        store.aliases.promote(to(), "b")
        await asyncio.gather(*(anext(frames) for frames in streams))
        assert len(readings) - before < 50
        for frames in streams:
            await frames.aclose()
        await asyncio.sleep(0.1)
        ended = len(readings)
        await asyncio.sleep(0.2)
        assert len(readings) == ended


async def test_client_that_reads_too_slowly_is_left(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(changes, "MAX_BEHIND", 2)
    async with services(store) as followed, aclosing(followed.frames()) as frames:
        await anext(frames)
        while followed.changes._followers:
            submit(store)
            await asyncio.sleep(0.01)
        # The last frame of each reading has an id.
        assert len([frame async for frame in frames if frame.id is not None]) <= 3


async def test_stream_ends_with_its_key(store: Store) -> None:
    async with services(store) as followed, aclosing(followed.frames()) as frames:
        await anext(frames)
        followed.ending = True
        assert [frame async for frame in frames] == []


async def test_mistake_in_a_reading_ends_the_streams_and_a_new_one_begins_again(
    store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with services(store) as followed:
        async with aclosing(followed.frames()) as frames:
            await began(frames)
            with monkeypatch.context() as patched:
                patched.setattr(Changes, "_read", lambda *_: 1 / 0)
                assert [frame async for frame in frames] == []
        async with aclosing(followed.frames()) as frames:
            await began(frames)
    assert "cannot be read" in caplog.text
