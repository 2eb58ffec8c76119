"""Which rows an owner sees. The owner None stands for all owners: workers, administrators, a shared workspace."""

from collections.abc import Sequence

from sqlalchemy import ColumnElement, Table, exists, or_

from app.store.tables import aliases, jobs, versions

Conditions = Sequence[ColumnElement[bool]]


def owned(table: Table, owner: str | None) -> Conditions:
    """The condition on an owner's jobs or data sets."""
    return () if owner is None else (table.c.owner == owner,)


def made_by(owner: str | None) -> Conditions:
    """The condition on the versions that an owner's jobs made. Two owners may make the same weights."""
    if owner is None:
        return ()
    by_job = exists().where(jobs.c.result_version == versions.c.id, jobs.c.owner == owner)
    return (or_(versions.c.owner == owner, by_job),)


def seen_by(owner: str | None) -> Conditions:
    """The condition on the versions that an owner sees and uses: its own, and what the service offers to all.

    The service offers the operator's own models, which have no folder, and every version that an alias points to.
    """
    if owner is None:
        return ()
    aliased = exists().where(aliases.c.version == versions.c.id)
    return (or_(*made_by(owner), versions.c.folder.is_(None), aliased),)
