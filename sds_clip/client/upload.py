"""The file of an upload: an archive, or a folder that is packed as a tar while it is sent."""

import os
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, cast

from sds_clip.client.errors import UnreadableFile

_CHUNK_BYTES = 2**20
_BLOCK = tarfile.BLOCKSIZE
_END = 2 * _BLOCK  # a tar ends with two empty blocks


class UploadFile:
    """The part of a file object's interface that httpx needs to send a form of known size.

    The service ignores the name of the file, so characters that UTF-8 cannot encode are replaced in it.

    Raises: UnreadableFile; ValueError for a folder that cannot be packed. Reading raises OSError if a file
    has become shorter since. A file that has grown is sent up to its earlier size.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        source = Path(path)
        try:
            self._entries = _entries(source) if source.is_dir() else None
            self._size_bytes = source.stat().st_size if self._entries is None else _tar_bytes(self._entries)
        except FileNotFoundError as error:
            raise UnreadableFile(
                f"There is no file or folder {error.filename or source}; check the path.", param="file"
            ) from error
        except OSError as error:
            reason = error.strerror or error
            raise UnreadableFile(
                f"{error.filename or source} cannot be read: {reason}.", param="file"
            ) from error
        self._name = "folder.tar" if source.is_dir() else source.name.encode(errors="replace").decode()
        content = _file(source, self._size_bytes) if self._entries is None else _tar(self._entries)
        self._chunks = filter(None, content)

    def as_form_file(self) -> dict[str, tuple[str, IO[bytes]]]:
        return {"file": (self._name, cast(IO[bytes], self))}

    def read(self, _: int) -> bytes:
        return next(self._chunks, b"")

    def tell(self) -> int:
        return 0

    def seek(self, _: int, whence: int = os.SEEK_SET) -> int:
        """httpx seeks to the end for the size, and to the start once before it reads."""
        return self._size_bytes if whence == os.SEEK_END else 0


def in_utf_8(name: str, remedy: str) -> str:
    """Return the name. Raises: ValueError, which names the remedy, if the name is not UTF-8 (PEP 383)."""
    try:
        name.encode()
    except UnicodeEncodeError:
        shown = name.encode(errors="backslashreplace").decode()
        raise ValueError(f"The name {shown} is not UTF-8; {remedy}.") from None
    return name


def _entries(folder: Path) -> list[tuple[tarfile.TarInfo, Path]]:
    entries = []
    for where, folders, names in os.walk(folder):
        folders.sort()
        linked = next((name for name in folders if (Path(where) / name).is_symlink()), None)
        if linked is not None:
            raise ValueError(
                f"{Path(where) / linked} is a link to a folder; replace it by the folder itself."
            )
        for name in sorted(names):
            file = Path(where) / name
            # The service refuses other names too, but only after it has received all files before them.
            path = in_utf_8(file.relative_to(folder).as_posix(), "rename it")
            info = tarfile.TarInfo(path)
            info.size = file.stat().st_size
            entries.append((info, file))
    if not entries:
        raise ValueError(f"{folder} holds no files.")
    return entries


def _tar_bytes(entries: list[tuple[tarfile.TarInfo, Path]]) -> int:
    return sum(len(_header(info)) + info.size + _padding(info.size) for info, _ in entries) + _END


def _tar(entries: list[tuple[tarfile.TarInfo, Path]]) -> Iterator[bytes]:
    for info, file in entries:
        yield _header(info)
        yield from _file(file, info.size)
        yield bytes(_padding(info.size))
    yield bytes(_END)


def _file(path: Path, size_bytes: int) -> Iterator[bytes]:
    left = size_bytes
    with path.open("rb") as file:
        while left and (chunk := file.read(min(left, _CHUNK_BYTES))):
            left -= len(chunk)
            yield chunk
    if left:
        raise OSError(f"{path} became shorter while it was sent; upload it again.")


def _header(info: tarfile.TarInfo) -> bytes:
    return info.tobuf(tarfile.PAX_FORMAT)


def _padding(size_bytes: int) -> int:
    return -size_bytes % _BLOCK
