"""Which rows an owner sees. The owner None stands for all owners: workers, administrators, a shared workspace."""

from collections.abc import Sequence

from sqlalchemy import ColumnElement, Table, exists, or_

from sds_clip.app.store.tables import aliases, jobs, versions

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


def usable_by(owner: str | None) -> Conditions:
    """The condition on the versions that an owner may put in service: its own, and the operator's, without a folder."""
    return () if owner is None else (or_(*made_by(owner), versions.c.folder.is_(None)),)


def seen_by(owner: str | None) -> Conditions:
    """The condition on the versions that an owner sees: those of `usable_by`, and every one that an alias points to."""
    if owner is None:
        return ()
    aliased = exists().where(aliases.c.version == versions.c.id, aliases.c.removed_at.is_(None))
    return (or_(*usable_by(owner), aliased),)
