"""The aliases, which point to versions, and their audit."""

from sqlalchemy import select

from sds_clip.app.errors import MissingScope, NothingToRollBack, RecordInUse, UnknownRecord
from sds_clip.app.store import alias_sql, version_sql
from sds_clip.app.store.alias_names import DEFAULT
from sds_clip.app.store.owned import Conditions, usable_by
from sds_clip.app.store.paging import MAX_NUMBER, MAX_ROWS, bounded
from sds_clip.app.store.part import Part, known
from sds_clip.app.store.records import Alias, AliasAction, AliasLock, Move, Promotion
from sds_clip.app.store.tables import aliases, promotions


class Aliases(Part):
    """The table of aliases.

    Every move is a compare-and-set. Moves, removals, locks and unlocks leave a line in the audit.

    All owners see all aliases, because the service offers them. With an owner, the audit is that of its own aliases.
    """

    def get(self, name: str) -> Alias:
        """The current state of an alias. Raises UnknownRecord, also if it was removed."""
        with self._database.reading() as connection:
            return known(connection, Alias, aliases, *_named(name))

    def find(self, name: str) -> Alias | None:
        """As `get`, but None for an unknown alias."""
        with self._database.reading() as connection:
            return Alias.one_or_none(connection, select(aliases).where(*_named(name)))

    def all(self) -> tuple[Alias, ...]:
        return tuple(alias for alias in self.ever() if alias.removed_at is None)

    def ever(self) -> tuple[Alias, ...]:
        """All aliases, and those that were removed."""
        with self._database.reading() as connection:
            return Alias.all(connection, select(aliases).order_by(aliases.c.name))

    def promote(self, move: Move, version_id: str, *, dry_run: bool = False) -> Alias:
        """Point an alias to a version. An alias that does not exist is created. A dry run is undone at its end.

        Raises: AliasMoved if its generation is not the expected one; MissingScope if it does not belong to the
        owner that the move is limited to; AliasLocked; UnusableRecord if the version is unknown or deleted.
        """
        with self._database.writing() as connection:
            alias = alias_sql.promote(connection, move, version_id, self._clock())
            if dry_run:
                connection.rollback()
        return alias

    def roll_back(self, move: Move) -> Alias:
        """Point an alias to its previous version: the one that it pointed to before its last promotion.

        Each further rollback goes one version further back (app/store/alias_sql.py).

        Raises: UnknownRecord, NothingToRollBack, AliasLocked, AliasMoved; MissingScope if the owner that the move is
        limited to does not have the alias, or did not make the version.
        """
        with self._database.writing() as connection:
            now = self._clock()
            old = alias_sql.find_held(connection, move.alias)
            alias_sql.check_owner(move, old)
            if old is None:
                raise UnknownRecord("alias")
            alias_sql.refuse_locked(old)
            if old.previous is None:
                raise NothingToRollBack(
                    f"The alias {move.alias} has no earlier version to go back to; promote a version instead."
                )
            alias_sql.check_generation(move, old.generation)
            history = alias_sql.earlier(connection, old)
            restored = next(each for each in history if each.version == old.previous)
            version_sql.hold(connection, restored.version, param="version")
            if version_sql.find(connection, restored.version, seen=usable_by(move.of_owner)) is None:
                raise MissingScope(
                    f"The alias {move.alias} would go back to a version of another key, which needs a key with the "
                    "scope admin. Promote a version of this key instead.",
                    param="alias",
                )
            previous = alias_sql.nearest(connection, history, other_than=restored.version)
            new = alias_sql.moved(connection, old, now, version=restored.version, previous=previous)
            alias_sql.audit(
                connection,
                AliasAction.ROLL_BACK,
                new,
                move,
                now,
                origin=old.version,
                back_to=restored.number,
            )
            return new

    def remove(self, move: Move) -> Alias:
        """Remove an alias. It is no error if it was removed before. A promotion creates it again.

        Raises: RecordInUse for the default; UnknownRecord, AliasLocked, AliasMoved; MissingScope if the alias does not
        belong to the owner that the move is limited to.
        """
        if move.alias == DEFAULT:
            raise RecordInUse(
                f"The alias {DEFAULT} cannot be removed, because it answers the requests that name no model. Point it "
                "to another version instead.",
                param="alias",
            )
        with self._database.writing() as connection:
            now = self._clock()
            old = alias_sql.find_row(connection, move.alias)
            alias_sql.check_owner(move, old)
            if old is None:
                raise UnknownRecord("alias")
            if old.removed_at is not None:
                return old
            alias_sql.refuse_locked(old)
            alias_sql.check_generation(move, old.generation)
            removed = alias_sql.moved(connection, old, now, previous=None, removed_at=now)
            alias_sql.audit(connection, AliasAction.REMOVE, removed, move, now, origin=old.version)
            return removed

    def lock(self, name: str, who: str, why: str) -> Alias:
        """Keep an alias where it is. An alias that is locked keeps its first lock. Raises UnknownRecord."""
        return self._set_lock(AliasAction.LOCK, name, who, why)

    def unlock(self, name: str, who: str, why: str) -> Alias:
        """Let an alias be moved again. It is no error if it is not locked. Raises UnknownRecord."""
        return self._set_lock(AliasAction.UNLOCK, name, who, why)

    def _set_lock(self, action: AliasAction, name: str, who: str, why: str) -> Alias:
        with self._database.writing() as connection:
            now = self._clock()
            lock = AliasLock(who, now, why) if action is AliasAction.LOCK else None
            alias = known(connection, Alias, aliases, *_named(name), lock=True)
            if (alias.lock is None) == (lock is None):
                return alias
            alias = alias_sql.changed(connection, alias, lock=lock)
            move = Move(name, who, why, expected_generation=None)
            alias_sql.audit(connection, action, alias, move, now, origin=alias.version)
            return alias

    def promotions(
        self,
        alias: str | None = None,
        *,
        before: int | None = None,
        limit: int = 20,
        moves_only: bool = False,
    ) -> tuple[Promotion, ...]:
        """The audit, newest first, of one alias or of all. With `before`, only the lines with a smaller number."""
        query = select(promotions).order_by(promotions.c.id.desc()).limit(bounded(limit, 1, MAX_ROWS))
        if before is not None:
            query = query.where(promotions.c.id < bounded(before, 0, MAX_NUMBER))
        if alias is not None:
            query = query.where(promotions.c.alias == alias)
        if moves_only:
            query = query.where(promotions.c.action.in_(alias_sql.MOVES))
        if self._owner is not None:
            own = select(aliases.c.name).where(aliases.c.owner == self._owner)
            query = query.where(promotions.c.alias.in_(own))
        with self._database.reading() as connection:
            return Promotion.all(connection, query)


def _named(name: str) -> Conditions:
    return aliases.c.name == name, aliases.c.removed_at.is_(None)
