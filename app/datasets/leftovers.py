"""Removes files of data sets that no record needs, which crashes have left on disk."""

from collections.abc import Container

from sds_clip.app.datasets.folders import DatasetFolders
from sds_clip.app.errors import UnknownRecord
from sds_clip.app.store import Workspace
from sds_clip.app.store.records import DatasetStatus

_NEEDED = (DatasetStatus.VALIDATING, DatasetStatus.READY)


def remove_leftovers(store: Workspace, folders: DatasetFolders) -> list[str]:
    """Remove what crashes have left on disk, and return the ids of the data sets. Raises StoreUnavailable."""

    def wants(dataset_id: str, statuses: Container[DatasetStatus], *, if_unknown: bool) -> bool:
        try:
            return store.datasets.get(dataset_id).status in statuses
        except UnknownRecord:
            return if_unknown

    return folders.sweep(
        # An upload exists before its record, and its writer holds the lock until the record does.
        wants_upload=lambda name: wants(name, {DatasetStatus.VALIDATING}, if_unknown=False),
        # A check publishes its set before it records the result. Records are never removed, so an unknown set
        # belongs to another database, which may come back.
        wants_set=lambda name: wants(name, _NEEDED, if_unknown=True),
    )
