"""Each test of the store runs twice: on SQLite and on a real PostgreSQL."""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from app.jobs.states import JobKind
from app.store import Store
from app.store.records import Job, Lease, NewJob
from app.store.tables import metadata
from tests.app.store.postgres import NoPostgreSQL, PostgreSQL


class FakeClock:
    """A clock that goes on by a millisecond a look, so that times differ, and by as much as a test says."""

    def __init__(self) -> None:
        self.now = 1_700_000_000.0

    def __call__(self) -> float:
        self.now += 0.001
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds


class Databases:
    """Migrated databases of one kind: a copy of one file for each test, or one database that is emptied."""

    def __init__(self, kind: str, folder: Path, server: PostgreSQL | None) -> None:
        self.kind = kind
        self._folder = folder
        self._server = server
        self._template = self.empty()
        store = Store(self.url(self._template))
        store.migrate()
        store.close()

    def empty(self) -> str:
        """The name of a database without tables."""
        if self._server is not None:
            return self._server.create()
        return str(len(list(self._folder.iterdir())))

    def migrated(self) -> str:
        """The name of a database with every table, and nothing in them. PostgreSQL takes half a second
        to make a database, so there it is always the same.
        """
        if self._server is not None:
            with psycopg.connect(self.url(self._template)) as connection:
                for table in reversed(metadata.sorted_tables):
                    connection.execute(f"DELETE FROM {table.name}".encode())
            return self._template
        name = self.empty()
        shutil.copyfile(self._folder / self._template, self._folder / name)
        return name

    def url(self, name: str) -> str:
        return f"sqlite:///{self._folder / name}" if self._server is None else self._server.url(name)


@pytest.fixture(scope="session")
def postgresql() -> Iterator[PostgreSQL]:
    try:
        server = PostgreSQL()
    except NoPostgreSQL as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(f"PostgreSQL cannot run here: {error}")
    yield server
    server.close()


@pytest.fixture(scope="session")
def sqlite_databases() -> Iterator[Databases]:
    # In memory where there is such a folder: every commit waits for the disk, which is not what is tested.
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else None) as folder:
        yield Databases("sqlite", Path(folder), None)


@pytest.fixture(scope="session")
def postgresql_databases(postgresql: PostgreSQL, tmp_path_factory: pytest.TempPathFactory) -> Databases:
    return Databases("postgresql", tmp_path_factory.mktemp("unused"), postgresql)


@pytest.fixture(params=["sqlite", "postgresql"])
def databases(request: pytest.FixtureRequest) -> Databases:
    made: Databases = request.getfixturevalue(f"{request.param}_databases")
    return made


@pytest.fixture
def url(databases: Databases) -> str:
    return databases.url(databases.migrated())


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
    job = store.work.claim(kind, owner, ttl_s)
    assert job is not None
    return Lease.of(job)
