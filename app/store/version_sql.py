"""Statements on versions for use within a transaction. Callers use `sds_clip.app.store.versions`.

A registered version always has its files. They are removed only while a row lock blocks the registration of
that version, and registering checks for the files under the same lock.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, delete, func, select, update
from sqlalchemy.dialects import postgresql, sqlite

from sds_clip.app.errors import UnusableRecord, VersionGone
from sds_clip.app.store.owned import Conditions
from sds_clip.app.store.records import NewVersion, Version, VersionStatus
from sds_clip.app.store.tables import versions


def find(
    connection: Connection, version_id: str, *, seen: Conditions = (), lock: bool = False
) -> Version | None:
    """A version's row, whatever its status, if it is among the `seen`. With `lock`, locked against changes."""
    query = select(versions).where(versions.c.id == version_id, *seen)
    return Version.one_or_none(connection, query.with_for_update() if lock else query)


def register(
    connection: Connection,
    new: NewVersion,
    now: float,
    *,
    job_id: str | None,
    owner: str = "",
    files: Path | None = None,
) -> Version:
    """Insert a version, or return the existing one with the same content. A deleted one is revived.

    An existing one keeps its owner, a revived one takes this one. `files` is where this process sees its folder.

    Raises: UnusableRecord if its base is not registered or was deleted; VersionGone if `files` does not
    exist.
    """
    if new.base_version is not None:
        hold(connection, new.base_version, param="base")
    values: dict[str, Any] = {
        **NewVersion.columns(new),
        "status": VersionStatus.READY,
        "created_at": now,
        "damaged_at": None,
        "owner": owner,
    }
    registered = _insert_new(connection, {**values, "job_id": job_id})
    if registered is None:
        registered = find(connection, new.id, lock=True)
        assert registered is not None  # versions are never removed, only marked
        if registered.status is VersionStatus.DELETED:
            # It keeps the job that made it first, because a job has at most one version, and this is that job's. If
            # that job was removed, it takes this one.
            kept = func.coalesce(versions.c.job_id, job_id)
            revived = update(versions).where(versions.c.id == new.id).values(**values, job_id=kept)
            registered = Version.one(connection, revived.returning(versions))
        elif registered.damaged_at is not None and new.folder is not None:
            # Publishing has verified the files again.
            mark_damaged(connection, new.id, None)
            registered = replace(registered, damaged_at=None)
    if files is not None and not files.is_dir():  # the row is locked here, so the files cannot be removed now
        raise VersionGone(
            f"The files of the version {new.id} were removed in the meantime; publish it again."
        )
    return registered


def lock_unregistered(connection: Connection, version_id: str, now: float) -> bool:
    """Keep a deleted or unknown version from being registered until this transaction ends. False for others.

    An unknown version has no row to lock. Inserting one blocks every other transaction that would insert it.
    """
    values = {"description": {}, "size_bytes": 0, "status": VersionStatus.DELETED, "created_at": now}
    if _insert_new(connection, {**values, "id": version_id}) is not None:
        connection.execute(delete(versions).where(versions.c.id == version_id))
        return True
    there = find(connection, version_id, lock=True)
    assert there is not None  # versions are never removed, only marked as deleted
    return there.status is VersionStatus.DELETED


def mark_damaged(connection: Connection, version_id: str, at: float | None) -> None:
    """Record when a version's files were found damaged, or None for intact files."""
    connection.execute(update(versions).where(versions.c.id == version_id).values(damaged_at=at))


def held_status(connection: Connection, version_id: str) -> VersionStatus | None:
    """A version's status, which cannot change until this transaction ends. None for an unknown version."""
    query = select(versions.c.status).where(versions.c.id == version_id).with_for_update(read=True)
    status: VersionStatus | None = connection.execute(query).scalar_one_or_none()
    return status


def hold(connection: Connection, version_id: str, *, param: str) -> None:
    """Keep a version from being deleted until this transaction ends. Raises UnusableRecord if it is gone."""
    status = held_status(connection, version_id)
    if status is not VersionStatus.READY:
        raise UnusableRecord(
            f"The version {version_id} is {status or 'unknown'}; name one that is registered.", param=param
        )


def _insert_new(connection: Connection, values: dict[str, Any]) -> Version | None:
    new = insert_if_absent(connection, versions).values(**values)
    return Version.one_or_none(connection, new.returning(versions))


def insert_if_absent(connection: Connection, table: Any) -> Any:
    """INSERT ... ON CONFLICT DO NOTHING, which waits for a concurrent insert of the same key to finish."""
    dialect = sqlite if connection.dialect.name == "sqlite" else postgresql
    key = list(table.primary_key.columns)
    return dialect.insert(table).on_conflict_do_nothing(index_elements=key)
