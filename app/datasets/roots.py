"""Registered data: folders and shards that are already on the server, under roots that the operator chose."""

import os
import re
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path

from sds_clip.app.datasets.folders import Content
from sds_clip.app.errors import ConfigurationError, InvalidRequest, SourceForbidden, SourceMissing
from sds_clip.app.schemas.datasets import MAX_SOURCE_CHARS
from sds_clip.models.images.tar_index import PatternError, expand_braces

MAX_SHARDS = 100_000
_FILE_URL = "file://"
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")
_PARAM = "source"


class SourceRoots:
    """The folders below which clients may name data. Without any, clients may name nothing.

    Raises: ConfigurationError for a root that is not a folder, is not absolute, or is the whole disk.
    """

    def __init__(self, roots: Sequence[Path]) -> None:
        self._roots = tuple(_root(root) for root in roots)

    def resolve(self, source: str) -> Content:
        """Resolve an absolute path, with or without file://, to a folder or to one or more tar files.

        `train/{00000..00099}.tar` and `{a,b}.tar` expand as in a shell. Links are followed once, here, so
        callers must use the returned paths. Outside the roots the answer does not reveal whether a path
        exists.

        Raises: InvalidRequest, SourceForbidden, SourceMissing.
        """
        pattern = _checked(source)
        paths: list[Path] = []
        modes: list[int] = []
        for name in expand(pattern):
            path = self.inside(name)
            try:
                modes.append(path.stat().st_mode)
            except OSError:  # this includes names that are too long and folders without permission
                raise SourceMissing(
                    f"{name}: the server has no such file or folder; check the path.", param=_PARAM
                ) from None
            paths.append(path)
        if len(paths) == 1 and stat.S_ISDIR(modes[0]):
            return Content(tuple(paths), is_folder=True)
        for path, mode in zip(paths, modes, strict=True):
            if not stat.S_ISREG(mode):  # a pipe or a device may never end
                raise SourceMissing(
                    f"{path}: this is not a file; name either shards or one folder.", param=_PARAM
                )
        return Content(tuple(paths), is_folder=False)

    def files(self, folder: Path) -> Iterator[Path]:
        """Yield all files of a registered folder, following links, which may not lead outside the roots.

        `folder` is a path that `resolve` returned.

        Raises: SourceForbidden.
        """
        seen: set[Path] = set()
        waiting = [folder]
        while waiting:
            for parent, folders, files in os.walk(waiting.pop()):
                here = Path(parent)
                if here in seen:
                    folders.clear()
                    continue
                seen.add(here)
                linked = [path for name in folders if (path := here / name).is_symlink()]
                waiting += [self.inside(str(path)) for path in linked]
                for name in files:
                    path = here / name
                    if path.is_symlink():
                        self.inside(str(path))
                    yield path

    def check_links(self, folder: Path) -> None:
        """Check that no link in a registered folder, or in a folder that it links to, leads outside the roots.

        Raises: SourceForbidden.
        """
        for _ in self.files(folder):
            pass

    def inside(self, name: str) -> Path:
        """Resolve all links in a path. Raises SourceForbidden if it leads out of the roots."""
        try:
            path = Path(name).resolve()
        except (OSError, RuntimeError):  # links form a loop
            path = None
        if path is None or not any(path.is_relative_to(root) for root in self._roots):
            raise SourceForbidden(
                f"{name}: this path is not in a folder that the operator opened for data sets; choose another path."
                if self._roots
                else "This server has no folders for registered data. Upload the data, or ask its operator to set "
                "SDS_CLIP_DATASET_ROOTS.",
                param=_PARAM,
            )
        return path


def expand(pattern: str) -> Iterator[str]:
    """Yield the paths of a pattern. Their number is checked first.

    Raises: InvalidRequest: an empty range, or more than MAX_SHARDS paths.
    """
    try:
        return expand_braces(pattern, most=MAX_SHARDS)
    except PatternError as error:
        raise InvalidRequest(str(error), param=_PARAM) from error


def _checked(source: str) -> str:
    """A path that may be opened. Every scheme but file:// is refused: `pipe:` would run commands."""
    if len(source) > MAX_SOURCE_CHARS or "\0" in source:
        raise InvalidRequest(
            f"The path is longer than {MAX_SOURCE_CHARS} characters, or contains a NUL; correct it.",
            param=_PARAM,
        )
    path = source.removeprefix(_FILE_URL)
    if _SCHEME.match(path):
        raise InvalidRequest("Only files on the server can be registered; upload other files.", param=_PARAM)
    try:
        path.encode()
    except UnicodeEncodeError:
        raise InvalidRequest(
            "The path contains half of a surrogate pair; correct it.", param=_PARAM
        ) from None
    if not path.startswith("/"):
        raise InvalidRequest("The path must be absolute, for example /data/sets/mine.", param=_PARAM)
    return path


def _root(root: Path) -> Path:
    if not root.is_absolute() or not root.is_dir():
        raise ConfigurationError(f"{root} in SDS_CLIP_DATASET_ROOTS is not a folder with an absolute path.")
    path = root.resolve()
    if path == Path(path.anchor):
        raise ConfigurationError(
            f"{root} in SDS_CLIP_DATASET_ROOTS is the whole disk; name a folder of data."
        )
    return path
