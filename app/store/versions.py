"""The registered versions."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, and_, exists, func, or_, select, union_all, update

from sds_clip.app.errors import AmbiguousName, RecordInUse
from sds_clip.app.store import alias_sql, names, version_sql
from sds_clip.app.store.clock import Clock
from sds_clip.app.store.database import Database
from sds_clip.app.store.owned import Conditions, made_by, owned, seen_by
from sds_clip.app.store.paging import EVERYTHING, MAX_LIMIT, MAX_ROWS, Rows, Search
from sds_clip.app.store.records import Job, NewVersion, Page, Version, VersionStatus
from sds_clip.app.store.states import OPEN, JobKind, JobStatus
from sds_clip.app.store.tables import aliases, job_versions, jobs, versions


class Versions(Rows[Version]):
    """The table of versions.

    `JobLeases.succeed` adds the versions that jobs make. `register` adds those of the operator.

    With an owner, versions that are neither its own nor offered to all (`sds_clip.app.store.owned`) are unknown.
    """

    table, record = versions, Version

    def __init__(self, database: Database, clock: Clock, owner: str | None = None) -> None:
        super().__init__(database, clock, owner)
        self._seen = seen_by(owner)

    def register(self, new: NewVersion) -> Version:
        """Register a version that no job made, for example a base. Repeating it is not an error.

        Raises: UnusableRecord if its base is not registered or was deleted.
        """
        with self._database.writing() as connection:
            return version_sql.register(connection, new, self._clock(), job_id=None)

    def begun(self, prefix: str) -> Sequence[str]:
        """The first ids that begin with these digits, of versions that this owner sees, deleted or not.

        There is one more than an error shows.
        """
        with self._database.reading() as connection:
            return connection.execute(begun_query(prefix, self._seen)).scalars().all()

    def named(self, prefix: str) -> str:
        """The id that begins with these digits. Raises UnknownRecord, AmbiguousName."""
        return names.only(prefix, self.begun(prefix))

    def made(self, version_id: str) -> bool:
        """Whether a job of this owner made the version."""
        with self._database.reading() as connection:
            return version_sql.find(connection, version_id, seen=made_by(self._owner)) is not None

    def among(self, ids: Collection[str]) -> frozenset[str]:
        """Those of the ids that are versions which this owner sees."""
        return self._among(ids, self._seen)

    def ready(self, ids: Collection[str]) -> frozenset[str]:
        """Those of the ids that are versions which this owner sees, and that are not deleted."""
        return self._among(ids, [versions.c.status == VersionStatus.READY, *self._seen])

    def _among(self, ids: Collection[str], conditions: Sequence[ColumnElement[bool]]) -> frozenset[str]:
        asked, found = sorted(ids), set[str]()
        with self._database.reading() as connection:
            for start in range(0, len(asked), MAX_ROWS):  # databases limit the parameters of a statement
                some = versions.c.id.in_(asked[start : start + MAX_ROWS])
                found.update(connection.execute(select(versions.c.id).where(some, *conditions)).scalars())
        return frozenset(found)

    def evaluations(self, version_id: str, *, by_id: bool = False) -> tuple[Job, ...]:
        """The jobs that have measured a version, newest first: evaluations of it, and jobs that have made it.

        There are MAX_LIMIT at most. With `by_id`, only those evaluations are found that named it by its id or an alias,
        and not by a reference. They have an index. Without one, the results of all evaluations are read.
        """
        measured = ("provenance", "model_version")
        is_made = jobs.c.result_version == version_id
        is_measured = or_(
            jobs.c.result[measured].as_string() == version_id,
            jobs.c.result[("baseline", *measured)].as_string() == version_id,
        )
        named = select(job_versions.c.job_id).where(job_versions.c.version_id == version_id)
        made = select(jobs.c.id).where(is_made).correlate(None)
        query = (
            select(jobs)
            .where(
                or_(is_made, and_(jobs.c.kind == JobKind.EVALUATE, is_measured)),
                jobs.c.status == JobStatus.SUCCEEDED,
                *([jobs.c.id.in_(union_all(named, made))] if by_id else []),
                *owned(jobs, self._owner),
            )
            .order_by(jobs.c.created_at.desc(), jobs.c.id.desc())
            .limit(MAX_LIMIT)
        )
        with self._database.reading() as connection:
            return Job.all(connection, query)

    def list(
        self,
        *,
        status: VersionStatus | None = VersionStatus.READY,
        owner: str | None = None,
        base: str | None = None,
        metadata: Mapping[str, str] = MappingProxyType({}),
        search: Search = EVERYTHING,
        after: str | None = None,
        limit: int = 20,
    ) -> Page[Version]:
        """Versions, newest first, starting after the id `after`. A version's names are its id and its aliases.

        `base` is the id of the version that they are deltas of. `metadata` is what a job that made the version has in
        its own, which counts only if the owner sees that job.

        For an owner who does not see the others' records, no other owner has any: those that are public do not tell
        whose they are.

        Raises UnknownRecord if that does not exist.
        """
        if self._owner is not None and owner not in (None, self._owner):
            return Page((), has_more=False)
        return self._page(
            equal={"status": status, "owner": owner, "base_version": base},
            where=[*_matching(search), *self._noted(metadata)],
            after=after,
            limit=limit,
        )

    def _noted(self, metadata: Mapping[str, str]) -> Sequence[ColumnElement[bool]]:
        if not metadata:
            return ()
        notes = (jobs.c.metadata[key].as_string() == value for key, value in metadata.items())
        return (exists().where(jobs.c.result_version == versions.c.id, *notes, *owned(jobs, self._owner)),)

    def mark_damaged(self, version_id: str, is_damaged: bool) -> None:
        """Record whether a version's files were found damaged or intact. An unknown version is not an error.

        Raises: StoreUnavailable.
        """
        with self._database.reading() as connection:
            version = version_sql.find(connection, version_id)
        if version is None or (version.damaged_at is not None) == is_damaged:
            return
        with self._database.writing() as connection:
            version_sql.mark_damaged(connection, version_id, self._clock() if is_damaged else None)

    def delete(self, version_id: str) -> Version:
        """Mark a version as deleted. The caller then removes its files, while they are `withheld`.

        Repeating it is not an error. A rollback skips a deleted version.

        Raises: UnknownRecord; RecordInUse while an alias points to it, an open job needs it, or a version
        that is not deleted has it as its base.
        """
        with self._database.writing() as connection:
            self._known(connection, version_id)
            # Checked before the version is locked, since aliases are locked first: see sds_clip.app.store.alias_sql.
            _refuse_if_needed(connection, version_id, self._owner)
            connection.execute(
                select(aliases.c.name).where(aliases.c.previous == version_id).with_for_update()
            ).all()
            version = version_sql.find(connection, version_id, lock=True)
            assert version is not None  # versions are never removed, only marked as deleted
            if version.status is VersionStatus.DELETED:
                return version
            _refuse_if_needed(connection, version_id, self._owner)
            deleted = update(versions).where(versions.c.id == version_id).values(status=VersionStatus.DELETED)
            version = Version.one(connection, deleted.returning(versions))
            alias_sql.forget_previous(connection, version_id)
        return version

    @contextmanager
    def withheld(self, version_id: str) -> Iterator[bool]:
        """Yield whether a version is deleted or unknown. If so, it cannot be registered during the block.

        Nothing changes in the database. Keep the block short, because every writer may have to wait for it.

        Raises: StoreUnavailable. If that happens at the end of the block, the version may have been
        registered meanwhile.
        """
        with self._database.writing() as connection:
            yield version_sql.lock_unregistered(connection, version_id, self._clock())


def begun_query(prefix: str, seen: Conditions = ()) -> Select[Any]:
    """The statement of `Versions.begun`, whose query plan a test checks."""
    ids = versions.c.id
    # A range of the primary key, which PostgreSQL would not use for LIKE.
    matching = ids.between(prefix.ljust(64, "0"), prefix.ljust(64, "f"))
    return select(ids).where(matching, *seen).order_by(ids).limit(AmbiguousName.SHOWN + 1)


def _refuse_if_needed(connection: Connection, version_id: str, owner: str | None) -> None:
    if (need := _need(connection, version_id, owner)) is not None:
        raise RecordInUse(f"The version {version_id} cannot be deleted: {need}.", param="version")


def _need(connection: Connection, version_id: str, owner: str | None) -> str | None:
    """What needs the version. `owner` is not told the ids of what belongs to others."""
    name = connection.scalar(
        select(aliases.c.name).where(aliases.c.version == version_id, aliases.c.removed_at.is_(None))
    )
    if name is not None:
        return f"the alias {name} points to it; point the alias to another version first, or remove it"
    job = connection.execute(
        select(jobs.c.id, jobs.c.owner)
        .join(job_versions, job_versions.c.job_id == jobs.c.id)
        .where(job_versions.c.version_id == version_id, jobs.c.status.in_(sorted(OPEN)))
    ).first()
    if job is not None:
        which = f"the job {job.id}" if owner in (None, job.owner) else "a job of another key"
        return f"{which} needs it and has not ended; wait for the job, or cancel it"
    over = versions.alias()
    child = connection.execute(
        select(over.c.id, over.c.owner).where(
            over.c.base_version == version_id, over.c.status == VersionStatus.READY
        )
    ).first()
    if child is None:
        return None
    which = f"the version {child.id}" if owner in (None, child.owner) else "a version of another key"
    return f"{which} is based on it; delete that version first"


def _matching(search: Search) -> list[ColumnElement[bool]]:
    """The condition on versions, which have no column for a name."""
    found = replace(search, name=None).conditions(versions)
    if search.name is not None:
        length = len(search.name)
        aliased = exists().where(
            aliases.c.version == versions.c.id,
            aliases.c.removed_at.is_(None),
            func.substr(aliases.c.name, 1, length) == search.name,
        )
        found.append(or_(aliased, func.substr(versions.c.id, 1, length) == search.name))
    return found
