"""Statements on aliases and their audit, for use within a transaction. Callers use `sds_clip.app.store.aliases`.

An alias is always held before any version, so that two transactions never deadlock.

The audit is also the history that rollbacks walk back. A rollback's line has in `back_to` the generation that it
restored. What lies before that generation also lies before the rollback:

    generation   line           a rollback leads to
    1            promote A      nothing
    2            promote B      generation 1, A
    3            promote C      generation 2, B
    4            back to 2, B   generation 1, A
    5            promote D      generation 2, B, which generation 4 restored

Deleted versions are skipped. Nothing leads back over a removal: an alias that is created again begins a new history.

A removed alias keeps its row, and so its generation. A process that has read it can tell a removal from an older
database.
"""

from collections.abc import Iterator
from itertools import islice
from typing import Any, NamedTuple

from sqlalchemy import Connection, insert, select, update

from sds_clip.app.errors import AliasLocked, AliasMoved, MissingScope
from sds_clip.app.store import version_sql
from sds_clip.app.store.records import Alias, AliasAction, Move, VersionStatus
from sds_clip.app.store.tables import aliases, promotions

MOVES = (AliasAction.PROMOTE, AliasAction.ROLL_BACK)
LEAVINGS = (*MOVES, AliasAction.REMOVE)
"""After these, an alias no longer points to the version that it pointed to before."""


class Generation(NamedTuple):
    """A generation of an alias, and the version that it pointed to."""

    number: int
    version: str


def find_held(connection: Connection, name: str) -> Alias | None:
    """The alias, which nobody else can change until this transaction ends. None if there is none, or no longer."""
    alias = find_row(connection, name)
    return None if alias is None or alias.removed_at is not None else alias


def find_row(connection: Connection, name: str) -> Alias | None:
    """The row of an alias, even of a removed one, held like the others."""
    return Alias.one_or_none(connection, select(aliases).where(aliases.c.name == name).with_for_update())


def promote(
    connection: Connection, move: Move, version_id: str, now: float, *, job_id: str | None = None
) -> Alias:
    """Point an alias to a version, by compare-and-set on its generation, and write the audit row.

    An alias that already points there is left unchanged, so that its previous version is kept, but for its owner.

    Raises: AliasMoved; MissingScope if the alias does not belong to the owner that the move is limited to;
    AliasLocked; UnusableRecord if the version is gone.
    """
    old = find_held(connection, move.alias)
    check_owner(move, old)
    version_sql.hold(connection, version_id, param="version")
    check_generation(move, 0 if old is None else old.generation)
    if old is None:
        new = _create(connection, move, version_id, now)
        audit(connection, AliasAction.PROMOTE, new, move, now, job_id=job_id)
        return new
    if old.version == version_id:
        return old if move.give_to in (None, old.owner) else _give(connection, old, move, now)
    refuse_locked(old)
    owner = old.owner if move.give_to is None else move.give_to
    new = moved(connection, old, now, version=version_id, previous=old.version, owner=owner)
    audit(connection, AliasAction.PROMOTE, new, move, now, origin=old.version, job_id=job_id)
    return new


def earlier(connection: Connection, alias: Alias) -> Iterator[Generation]:
    """The generations that rollbacks can restore, nearest first."""
    return islice(_history(connection, alias), 1, None)  # the first one is what the alias points to now


def _history(connection: Connection, alias: Alias) -> Iterator[Generation]:
    lines = connection.execute(
        select(promotions.c.generation, promotions.c.to_version, promotions.c.back_to, promotions.c.action)
        .where(promotions.c.alias == alias.name, promotions.c.action.in_(LEAVINGS))
        .order_by(promotions.c.id.desc())
    ).all()
    at = alias.generation
    for line in lines:
        if line.action is AliasAction.REMOVE:
            return
        if line.generation > at:  # a rollback left it behind
            continue
        if line.back_to is None:
            yield Generation(line.generation, line.to_version)
            at = line.generation - 1
        else:
            at = line.back_to


def nearest(connection: Connection, history: Iterator[Generation], *, other_than: str) -> str | None:
    """The first other version of a history that is not deleted. It is held against deletion."""
    return next(
        (
            each.version
            for each in history
            if each.version != other_than
            and version_sql.held_status(connection, each.version) is VersionStatus.READY
        ),
        None,
    )


def forget_previous(connection: Connection, version_id: str) -> None:
    """Let the aliases that a rollback would lead to a deleted version lead to the one before it."""
    query = select(aliases).where(aliases.c.previous == version_id).with_for_update()
    for alias in Alias.all(connection, query):
        previous = nearest(connection, earlier(connection, alias), other_than=alias.version)
        connection.execute(update(aliases).where(aliases.c.name == alias.name).values(previous=previous))


def check_owner(move: Move, alias: Alias | None) -> None:
    if move.of_owner is not None and (alias is None or alias.owner != move.of_owner):
        raise MissingScope(
            f"Changing the alias {move.alias} needs a key with the scope admin, or the key that the alias was given "
            "to.",
            param="alias",
        )


def refuse_locked(alias: Alias) -> None:
    if alias.lock is not None:
        raise AliasLocked(
            f"The alias {alias.name} is locked, and stays where it is: {alias.lock} To change it, unlock it first "
            f"with a key that has the scope admin (POST /models/{alias.name}/unlock, or `sds-clip models unlock "
            f"{alias.name}`).",
            param="alias",
        )


def check_generation(move: Move, generation: int) -> None:
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
    new = version_sql.insert_if_absent(connection, aliases).values(**values)
    again = (
        update(aliases)
        .where(aliases.c.name == move.alias, aliases.c.removed_at.is_not(None))
        .values({**values, "generation": aliases.c.generation + 1, "removed_at": None})
    )
    created = Alias.one_or_none(connection, new.returning(aliases)) or Alias.one_or_none(
        connection, again.returning(aliases)
    )
    if created is None:
        raise AliasMoved(
            f"Another caller has just created the alias {move.alias}. Read it again before you decide."
        )
    return created


def moved(connection: Connection, old: Alias, now: float, **values: Any) -> Alias:
    """Write the next generation of an alias."""
    return changed(connection, old, generation=old.generation + 1, updated_at=now, **values)


def changed(connection: Connection, old: Alias, **values: Any) -> Alias:
    is_same = aliases.c.name == old.name, aliases.c.generation == old.generation
    return Alias.one(connection, update(aliases).where(*is_same).values(**values).returning(aliases))


def _give(connection: Connection, old: Alias, move: Move, now: float) -> Alias:
    """Change an alias's owner and nothing else."""
    given = changed(connection, old, owner=move.give_to)
    audit(connection, AliasAction.GIVE, given, move, now, origin=old.version)
    return given


def audit(
    connection: Connection,
    action: AliasAction,
    alias: Alias,
    move: Move,
    now: float,
    *,
    origin: str | None = None,
    back_to: int | None = None,
    job_id: str | None = None,
) -> None:
    connection.execute(
        insert(promotions).values(
            at=now,
            who=move.who,
            alias=alias.name,
            action=action,
            from_version=origin,
            to_version=alias.version,
            generation=alias.generation,
            back_to=back_to,
            why=move.why,
            metrics=move.metrics,
            job_id=job_id,
            forced=move.forced,
        )
    )
