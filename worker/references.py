"""Resolves the name a job has for a model, a version's id or a reference, to a loadable reference.

There are no aliases here: they were resolved when the job was submitted (`sds_clip.app.jobs.model_resolver`).
"""

from pathlib import Path

from sds_clip.app.errors import UnknownRecord
from sds_clip.app.registry.store_source import weights_location
from sds_clip.app.store import Store
from sds_clip.app.store.records import VersionStatus
from sds_clip.models.checkpoints.references import Folder, is_version
from sds_clip.models.clip.model import Clip
from sds_clip.worker.config import WorkerConfig
from sds_clip.worker.errors import JobFailed


def loadable(store: Store, config: WorkerConfig, name: str, *, param: str) -> str:
    """Replace a version's id by its folder; other references stay as they are.

    Raises: JobFailed if the version is unknown or deleted; StoreUnavailable.
    """
    return of_version(store, config, name, param=param) if is_version(name) else name


def of_version(store: Store, config: WorkerConfig, version_id: str, *, param: str) -> str:
    """The reference of a registered version. Raises JobFailed, StoreUnavailable."""
    try:
        version = store.versions.get(version_id)
    except UnknownRecord:
        raise JobFailed("version_not_found", f"There is no version {version_id}.", param=param) from None
    if version.status is VersionStatus.DELETED:
        raise JobFailed("unusable_record", f"The version {version_id} was deleted.", param=param)
    location = weights_location(version, config.data_dir)
    return str(Folder(str(location.absolute()))) if isinstance(location, Path) else location


def check_version(clip: Clip, name: str, *, param: str) -> None:
    """Raise JobFailed if a version's files hold other weights than it was registered with."""
    if is_version(name) and clip.version != name:
        raise JobFailed(
            "version_changed",
            (
                f"The files of version {name[:12]} were changed: they now give version "
                f"{clip.version[:12]}. Restore them, or name the model by its reference."
            ),
            param=param,
        )
