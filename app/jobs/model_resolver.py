"""Resolves the names of models and teachers in a job to what the worker will use.

A name is looked up as a version, then as an alias, then as one of the operator's references, and at last as the
beginning of a version's id. An alias becomes the version that it points to now, so a job uses the version that its
caller saw, whenever it starts.
"""

from collections.abc import Iterable
from pathlib import Path

from sds_clip.app.errors import AmbiguousName, ModelNotAllowed, UnknownRecord, UnusableRecord, UnusableTeacher
from sds_clip.app.store import Workspace
from sds_clip.app.store.alias_names import DEFAULT
from sds_clip.app.store.records import VersionStatus
from sds_clip.models.checkpoints.references import (
    DEMO,
    BadReferenceError,
    canonical,
    is_prefix,
    is_version,
    shipped_demos,
)
from sds_clip.models.errors import TeacherError


class ModelResolver:
    """Looks names up in a caller's workspace. Its methods block, so call them in a thread.

    Raises: BadReferenceError for an invalid reference in the operator's settings.
    """

    def __init__(self, *, models: Iterable[str], allowed: Iterable[str], teachers: Iterable[str]) -> None:
        served = [canonical(reference) for reference in models]
        self._first = served[0]
        self.allowed = list(dict.fromkeys([*served, *shipped_demos(), *map(canonical, allowed)]))
        self.teachers = list(dict.fromkeys(teachers))

    def model(self, store: Workspace, name: str, *, param: str) -> str:
        """The id of a registered version, or a reference as the operator spells it.

        Raises: ModelNotAllowed, UnusableRecord for a version that is unknown or deleted, StoreUnavailable.
        """
        if is_version(name):
            return _version(store, name, param)
        if (alias := store.aliases.find(name)) is not None:
            return _version(store, alias.version, param)
        if name == DEFAULT:
            return self._first
        try:
            reference = canonical(name)
        except BadReferenceError:
            reference = name
        if reference in self.allowed:
            return reference
        try:
            if is_prefix(name):
                return _version(store, store.versions.named(name), param)
        except AmbiguousName as error:
            raise UnusableRecord(error.message, param=param) from None
        except UnknownRecord:
            pass
        raise ModelNotAllowed(
            f"This server has no version or alias {name[:200]!r}, and its operator does not allow a model of "
            f"this name. Use {DEFAULT}, a version, an alias, or one of: {', '.join(self.allowed)}. The operator "
            "can allow more models with SDS_CLIP_ALLOWED_MODELS.",
            param=param,
        )

    def check_teacher(self, name: str, *, param: str) -> None:
        """Raise ModelNotAllowed unless jobs may name this teacher, and UnusableTeacher for what its folder says.

        Only a folder that this process sees is read, without its weights. The worker checks every teacher again.
        """
        if name not in self.teachers:
            allowed = f"Use one of: {', '.join(self.teachers)}." if self.teachers else "It allows no teacher."
            raise ModelNotAllowed(
                f"This server does not allow the teacher {name[:200]!r}. {allowed} Its operator can allow more "
                "teachers with SDS_CLIP_ALLOWED_TEACHERS.",
                param=param,
            )
        folder = Path(name.removeprefix("local-dir:"))
        if name != DEMO and folder.is_dir():
            from sds_clip.models.teacher.folder import find_family  # of which a service needs nothing else

            try:
                find_family(folder, name)
            except TeacherError as error:
                raise UnusableTeacher(str(error), param=param) from None


def _version(store: Workspace, version_id: str, param: str) -> str:
    try:
        version = store.versions.get(version_id)
    except UnknownRecord:
        raise UnusableRecord(
            f"There is no version {version_id[:12]}; GET /models lists all versions.", param=param
        ) from None
    if version.status is VersionStatus.DELETED:
        raise UnusableRecord(f"The version {version_id[:12]} was deleted; name another version.", param=param)
    return version_id
