"""A registered version has its files, whoever removes them and whoever registers it at the same time."""

import os
import shutil
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path

import psycopg
import pytest

from sds_clip.app.errors import StoreUnavailable, UnknownRecord, VersionGone
from sds_clip.app.removal import remove_version_files
from sds_clip.app.store import Store
from sds_clip.app.store.records import Lease, NewVersion, VersionStatus
from sds_clip.app.store.states import JobStatus
from tests.app.store.conftest import at_once, claimed, submitted

BEFORE = ["unknown", "deleted"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A version's folder as `publish` leaves it."""
    folder = tmp_path / "versions" / ("a" * 64)
    folder.mkdir(parents=True)
    (folder / "weights").write_text("1")
    return folder


def row(folder: Path) -> NewVersion:
    return NewVersion(folder.name, f"versions/{folder.name}", {}, 1)


def begin(store: Store, folder: Path, before: str) -> Lease:
    """A job that is about to register a version, which is unknown or deleted."""
    if before == "deleted":
        store.versions.register(row(folder))
        store.versions.delete(folder.name)
    submitted(store)
    return claimed(store)


def status(store: Store, folder: Path) -> str:
    try:
        return store.versions.get(folder.name).status
    except UnknownRecord:
        return "unknown"


@pytest.mark.parametrize("before", BEFORE)
def test_who_registers_a_version_waits_for_who_removes_its_files(
    store: Store, folder: Path, before: str
) -> None:
    lease = begin(store, folder, before)
    gone: list[VersionGone] = []

    def register() -> None:
        try:
            store.leases.succeed(lease, version=row(folder), files=folder)
        except VersionGone as error:
            gone.append(error)

    thread = threading.Thread(target=register)
    with store.versions.withheld(folder.name) as is_withheld:
        assert is_withheld
        thread.start()
        thread.join(0.3)
        assert thread.is_alive()
        shutil.rmtree(folder)
    thread.join()
    assert len(gone) == 1
    assert status(store, folder) == before


@pytest.mark.parametrize("before", BEFORE)
def test_racing_job_and_removal_never_end_with_a_version_without_files(
    store: Store, folder: Path, before: str
) -> None:
    for _ in range(10):
        folder.mkdir(exist_ok=True)
        lease = begin(store, folder, before)
        succeed = partial(store.leases.succeed, lease, version=row(folder), files=folder)
        answer, _ = at_once(succeed, partial(remove_version_files, store, folder))
        if isinstance(answer, VersionGone):
            store.jobs.request_cancel(lease.job_id)
            store.leases.release(lease)
        else:
            assert answer.status is JobStatus.SUCCEEDED
        assert folder.exists() == (status(store, folder) == VersionStatus.READY)
        if folder.exists():
            before = "deleted"


@pytest.mark.parametrize("before", BEFORE)
def test_one_of_many_simultaneous_removals_removes(store: Store, folder: Path, before: str) -> None:
    begin(store, folder, before)
    removed = at_once(*[partial(remove_version_files, store, folder)] * 4)
    assert sorted(removed) == [False, False, False, True]
    assert list(folder.parent.iterdir()) == []


@pytest.mark.parametrize("databases", ["postgresql"], indirect=True)
def test_files_moved_aside_under_a_lock_that_was_lost_are_put_back(
    store: Store, url: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The database ends the transaction of a process that stood still, and a job may have registered the version."""
    begin(store, folder, "deleted")
    monkeypatch.setattr(os, "rename", _after(os.rename, lambda: _end_transactions(url)))
    with pytest.raises(StoreUnavailable):
        remove_version_files(store, folder)
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]
    assert (folder / "weights").read_text() == "1"


def _after(rename: Callable[[Path, Path], None], act: Callable[[], None]) -> Callable[[Path, Path], None]:
    def later(source: Path, target: Path) -> None:
        act()
        rename(source, target)

    return later


def _end_transactions(url: str) -> None:
    with psycopg.connect(url) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND state = 'idle in transaction'"
        )
