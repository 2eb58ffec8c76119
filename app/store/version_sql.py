"""Statements on versions and aliases for use within a transaction. Callers use `app.store.versions`.

An alias is always locked before any version, so that two transactions never deadlock.

A registered version always has its files. They are removed only while a row lock blocks the registration of
that version, and registering checks for the files under the same lock.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, delete, insert, select, update
from sqlalchemy.dialects import postgresql, sqlite

from app.errors import AliasMoved, MissingScope, UnusableRecord, VersionGone
from app.store.owned import Conditions
from app.store.records import Alias, Move, NewVersion, Version, VersionStatus
from app.store.tables import aliases, promotions, versions


def find(
    connection: Connection, version_id: str, *, seen: Conditions = (), lock: bool = False
) -> Version | None:
    """A version's row, whatever its status, if it is among the `seen`. With `lock`, locked against changes."""
    query = select(versions).where(versions.c.id == version_id, *seen)
    row = connection.execute(query.with_for_update() if lock else query).one_or_none()
    return None if row is None else Version.of(row._mapping)


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
    registered = _registered(connection, new, now, job_id, owner)
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


def _registered(
    connection: Connection, new: NewVersion, now: float, job_id: str | None, owner: str
) -> Version:
    if new.base_version is not None:
        _lock_against_deletion(connection, new.base_version, param="base")
    values: dict[str, Any] = {
        "folder": new.folder,
        "description": dict(new.description),
        "size_bytes": new.size_bytes,
        "base": new.base,
        "base_version": new.base_version,
        "status": VersionStatus.READY,
        "created_at": now,
        "damaged_at": None,
        "owner": owner,
    }
    inserted = _insert_new(connection, {**values, "id": new.id, "job_id": job_id})
    if inserted is not None:
        return inserted
    there = find(connection, new.id, lock=True)
    assert there is not None  # versions are never removed, only marked
    if there.status is VersionStatus.DELETED:
        # It keeps the job that made it first, because a job has at most one version, and this is that job's.
        connection.execute(update(versions).where(versions.c.id == new.id).values(**values))
        there = find(connection, new.id)
        assert there is not None
    elif there.damaged_at is not None and new.folder is not None:  # publishing has verified the files again
        mark_damaged(connection, new.id, None)
        there = replace(there, damaged_at=None)
    return there


def mark_damaged(connection: Connection, version_id: str, at: float | None) -> None:
    """Record when a version's files were found damaged, or None for intact files."""
    connection.execute(update(versions).where(versions.c.id == version_id).values(damaged_at=at))


def _lock_against_deletion(connection: Connection, version_id: str, *, param: str) -> None:
    """Keep a version from being deleted until this transaction ends. Raises UnusableRecord if it is gone."""
    status = connection.execute(
        select(versions.c.status).where(versions.c.id == version_id).with_for_update(read=True)
    ).scalar_one_or_none()
    if status != VersionStatus.READY:
        raise UnusableRecord(
            f"The version {version_id} is {status or 'unknown'}; name one that is registered.", param=param
        )


def locked_alias(connection: Connection, name: str) -> Alias | None:
    """The alias, if it exists, locked against moves until this transaction ends."""
    row = connection.execute(select(aliases).where(aliases.c.name == name).with_for_update()).one_or_none()
    return None if row is None else Alias.of(row._mapping)


def move_alias(
    connection: Connection, move: Move, version_id: str, now: float, *, job_id: str | None = None
) -> Alias:
    """Point an alias at a version, by compare-and-set on its generation, and write the audit row.

    An alias that already points there is left unchanged, so that its previous version is kept, but for its owner.

    Raises: AliasMoved; MissingScope if the alias does not belong to the owner that the move is limited to;
    UnusableRecord if the version is gone.
    """
    old = locked_alias(connection, move.alias)
    check_owner(move, old)
    _lock_against_deletion(connection, version_id, param="version")
    _check_generation(move, 0 if old is None else old.generation)
    if old is not None and old.version == version_id:
        return old if move.give_to in (None, old.owner) else _give(connection, move, old, now)
    if old is None:
        origin, new = None, _create(connection, move, version_id, now)
    else:
        origin, new = old.version, _repoint(connection, move, old, version_id, now)
    _audit(connection, move, origin, new, now, job_id)
    return new


def check_owner(move: Move, alias: Alias | None) -> None:
    """Raise MissingScope if the move is limited to the aliases of an owner, and this is not one of them."""
    if move.of_owner is not None and (alias is None or alias.owner != move.of_owner):
        raise MissingScope(
            f"Moving the alias {move.alias} needs a key with the scope admin, or the key that the alias was given to.",
            param="alias",
        )


def _check_generation(move: Move, generation: int) -> None:
    if move.expected_generation is not None and move.expected_generation != generation:
        if generation == 0:
            raise AliasMoved(
                f"There is no alias {move.alias}. To create it, send expected_generation 0, or leave the field out."
            )
        raise AliasMoved(
            f"The alias {move.alias} is at generation {generation}, not {move.expected_generation}; it "
            "may have been moved in the meantime. Read it again before you decide."
        )


def _create(connection: Connection, move: Move, version_id: str, now: float) -> Alias:
    values = {
        "name": move.alias,
        "version": version_id,
        "generation": 1,
        "updated_at": now,
        "owner": move.give_to or "",
    }
    row = connection.execute(
        _insert_if_absent(connection, aliases).values(**values).returning(aliases)
    ).one_or_none()
    if row is None:
        raise AliasMoved(
            f"Another caller has just created the alias {move.alias}. Read it again before you decide."
        )
    return Alias.of(row._mapping)


def _repoint(connection: Connection, move: Move, old: Alias, version_id: str, now: float) -> Alias:
    row = connection.execute(
        update(aliases)
        .where(aliases.c.name == old.name, aliases.c.generation == old.generation)
        .values(
            version=version_id,
            previous=old.version,
            generation=old.generation + 1,
            updated_at=now,
            owner=old.owner if move.give_to is None else move.give_to,
        )
        .returning(aliases)
    ).one()
    return Alias.of(row._mapping)


def _give(connection: Connection, move: Move, old: Alias, now: float) -> Alias:
    """Change an alias's owner and nothing else. The audit tells who did it."""
    row = connection.execute(
        update(aliases).where(aliases.c.name == old.name).values(owner=move.give_to).returning(aliases)
    ).one()
    given = Alias.of(row._mapping)
    _audit(connection, move, old.version, given, now, None)
    return given


def _audit(
    connection: Connection, move: Move, origin: str | None, alias: Alias, now: float, job_id: str | None
) -> None:
    connection.execute(
        insert(promotions).values(
            at=now,
            who=move.who,
            alias=alias.name,
            from_version=origin,
            to_version=alias.version,
            generation=alias.generation,
            why=move.why,
            metrics=None if move.metrics is None else dict(move.metrics),
            job_id=job_id,
            forced=move.forced,
        )
    )


def _insert_new(connection: Connection, values: dict[str, Any]) -> Version | None:
    row = connection.execute(
        _insert_if_absent(connection, versions).values(**values).returning(versions)
    ).one_or_none()
    return None if row is None else Version.of(row._mapping)


def _insert_if_absent(connection: Connection, table: Any) -> Any:
    """INSERT ... ON CONFLICT DO NOTHING, which waits for a concurrent insert of the same key to finish."""
    dialect = sqlite if connection.dialect.name == "sqlite" else postgresql
    key = list(table.primary_key.columns)
    return dialect.insert(table).on_conflict_do_nothing(index_elements=key)
