"""The aliases, which point to versions, and their audit."""

from sqlalchemy import select

from sds_clip.app.store import alias_sql
from sds_clip.app.store.paging import MAX_NUMBER, MAX_ROWS, bounded
from sds_clip.app.store.part import Part, known
from sds_clip.app.store.records import Alias, AliasLock, Move, Promotion
from sds_clip.app.store.tables import aliases, promotions


class Aliases(Part):
    """The table of aliases.

    Every move is a compare-and-set. Moves, removals, locks and unlocks leave a line in the audit.

    All owners see all aliases, because the service offers them. With an owner, the audit is that of its own aliases.
    """

    def get(self, name: str) -> Alias:
        """The current state of an alias. Raises UnknownRecord, also if it was removed."""
        with self._database.reading() as connection:
            return known(connection, Alias, aliases, aliases.c.name == name, aliases.c.removed_at.is_(None))

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

        Raises: UnknownRecord, NothingToRollBack, AliasLocked, AliasMoved, MissingScope.
        """
        with self._database.writing() as connection:
            return alias_sql.roll_back(connection, move, self._clock())

    def remove(self, move: Move) -> Alias:
        """Remove an alias. It is no error if it was removed before. A promotion creates it again.

        Raises: RecordInUse for the default; UnknownRecord, AliasLocked, AliasMoved, MissingScope.
        """
        with self._database.writing() as connection:
            return alias_sql.remove(connection, move, self._clock())

    def lock(self, name: str, who: str, why: str) -> Alias:
        """Keep an alias where it is. An alias that is locked keeps its first lock. Raises UnknownRecord."""
        with self._database.writing() as connection:
            return alias_sql.set_lock(connection, name, AliasLock(who, self._clock(), why), locked=True)

    def unlock(self, name: str, who: str, why: str) -> Alias:
        """Let an alias be moved again. It is no error if it is not locked. Raises UnknownRecord."""
        with self._database.writing() as connection:
            return alias_sql.set_lock(connection, name, AliasLock(who, self._clock(), why), locked=False)

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
