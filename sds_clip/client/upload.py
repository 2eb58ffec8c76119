"""A data set's files as one form, streamed: an archive as it is, a folder as a tar made on the way."""

import os
import tarfile
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path

from sds_clip.client.errors import UnreadableFile

_CHUNK_BYTES = 2**20
_BLOCK = tarfile.BLOCKSIZE
_END = 2 * _BLOCK


class Form:
    """multipart/form-data with fields and one file, whose size is known before it is sent."""

    def __init__(self, path: Path, fields: Mapping[str, str]) -> None:
        """Raises: OSError for what cannot be read, ValueError for a folder that cannot be packed."""
        self._path = path
        self._entries = _entries(path) if path.is_dir() else None
        boundary = uuid.uuid4().hex
        file_name = path.name if self._entries is None else "folder.tar"
        self._head = b"".join(
            _part(boundary, f'name="{name}"') + value.encode() + b"\r\n" for name, value in fields.items()
        ) + _part(boundary, f'name="file"; filename="{_plain(file_name)}"')
        self._tail = f"\r\n--{boundary}--\r\n".encode()
        size_bytes = path.stat().st_size if self._entries is None else _tar_bytes(self._entries)
        self.headers = {
            "Content-Type": f"multipart/form-data; boundary={boundary}",
            "Content-Length": str(len(self._head) + size_bytes + len(self._tail)),
        }

    def chunks(self) -> Iterator[bytes]:
        """Its bytes. Raises OSError where a file is not what it was."""
        yield self._head
        if self._entries is None:
            yield from _file(self._path, self._path.stat().st_size)
        else:
            yield from _tar(self._entries)
        yield self._tail


def dataset_form(
    path: str | os.PathLike[str], *, format: str, name: str | None, max_bad_share: float
) -> Form:
    """A data set's form, named for its file or folder where it is not given a name.

    Raises: UnreadableFile, and ValueError for a folder that cannot be packed.
    """
    source = Path(path)
    fields = {
        "name": name or source.resolve().name,
        "format": format,
        "max_bad_share": str(max_bad_share),
    }
    try:
        return Form(source, fields)
    except OSError as error:
        reason = error.strerror or error
        raise UnreadableFile(f"{error.filename or source} cannot be read: {reason}.", param="file") from error


def _entries(folder: Path) -> list[tuple[tarfile.TarInfo, Path]]:
    entries = []
    for where, folders, names in os.walk(folder):
        folders.sort()
        linked = next((name for name in folders if (Path(where) / name).is_symlink()), None)
        if linked is not None:
            raise ValueError(f"{Path(where) / linked} is a link to a folder; put the folder itself there.")
        for name in sorted(names):
            file = Path(where) / name
            info = tarfile.TarInfo(file.relative_to(folder).as_posix())
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
        raise OSError(f"{path} became shorter while it was sent; send it again.")


def _header(info: tarfile.TarInfo) -> bytes:
    return info.tobuf(tarfile.PAX_FORMAT)


def _padding(size_bytes: int) -> int:
    return -size_bytes % _BLOCK


def _part(boundary: str, disposition: str) -> bytes:
    return f"--{boundary}\r\nContent-Disposition: form-data; {disposition}\r\n\r\n".encode()


def _plain(name: str) -> str:
    return "".join(character if character.isalnum() or character in "._-" else "_" for character in name)
