"""Each test of the store runs twice: on SQLite and on a real PostgreSQL."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

import pytest

from sds_clip.app.errors import ServiceError
from sds_clip.app.store import Store
from sds_clip.app.store.records import Job, Lease, Move, NewJob, NewVersion
from sds_clip.app.store.states import JobKind
from tests.databases import KINDS, Databases


class FakeClock:
    """A clock that goes on by a millisecond a look, so that times differ, and by as much as a test says."""

    def __init__(self) -> None:
        self.now = 1_700_000_000.0

    def __call__(self) -> float:
        self.now += 0.001
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture(params=KINDS)
def databases(request: pytest.FixtureRequest) -> Databases:
    made: Databases = request.getfixturevalue(f"{request.param}_databases")
    return made


@pytest.fixture
def url(database_url: str) -> str:
    return database_url


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def make_store() -> Iterator[Callable[..., Store]]:
    """Opens stores, and closes them after the test."""
    opened: list[Store] = []

    def make(url: str, **options: Any) -> Store:
        opened.append(Store(url, **options))
        return opened[-1]

    yield make
    for store in opened:
        store.close()


@pytest.fixture
def store(url: str, clock: FakeClock, make_store: Callable[..., Store]) -> Store:
    return make_store(url, clock=clock)


def new_job(kind: JobKind = JobKind.FINETUNE, **options: Any) -> NewJob:
    return NewJob(**{"kind": kind, "request": {"base": "demo"}, **options})


def submitted(store: Store, **options: Any) -> Job:
    job, is_new = store.jobs.submit(new_job(**options))
    assert is_new
    return job


def claimed(
    store: Store, *, kind: JobKind = JobKind.FINETUNE, owner: str = "slot", ttl_s: float = 60.0
) -> Lease:
    """The lease of the oldest job of a kind; the test knows that there is one."""
    job = store.leases.claim(kind, owner, ttl_s)
    assert job is not None
    return Lease.of(job)


def begun(store: Store, **options: Any) -> Lease:
    """The lease of a new job, which has to be the oldest that waits."""
    job = submitted(store, **options)
    lease = claimed(store)
    assert lease.job_id == job.id
    return lease


def at_once(*acts: Callable[[], Any]) -> list[Any]:
    """What each of several acts returns, or how it is refused. They begin at the same moment."""
    barrier = Barrier(len(acts))

    def run(act: Callable[[], Any]) -> Any:
        barrier.wait()
        try:
            return act()
        except ServiceError as error:
            return error

    with ThreadPoolExecutor(len(acts)) as threads:
        return list(threads.map(run, acts))


def register(store: Store, *ids: str, **options: Any) -> None:
    for id in ids:
        store.versions.register(
            NewVersion(**{"id": id, "folder": None, "description": {}, "size_bytes": 1, **options})
        )


def to(alias: str = "default", expected: int | None = None, **options: Any) -> Move:
    return Move(
        **{"alias": alias, "who": "me", "why": "a reason", "expected_generation": expected, **options}
    )
