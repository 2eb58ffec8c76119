"""The format of a backup: an uncompressed tar file, written and read as a stream.

    sds-clip-backup.json     format, program, revision of the tables, time, and how much it holds
    rows.jsonl               every row, as {"table": ..., "row": {...}}
    files/...                the files that the rows name, by their paths in the data folder
    manifest.json            size and SHA-256 of every file above; what was missing

The manifest comes last. An archive without it was not finished.
"""

import hashlib
import io
import json
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, cast

from sds_clip.app.backup.scratch import BackupError
from sds_clip.app.datasets.archive_limits import ArchiveLimits
from sds_clip.app.datasets.archives import Forwards, Member, read_tar
from sds_clip.app.datasets.folders import create_file, write_all
from sds_clip.app.datasets.names import member_parts
from sds_clip.app.errors import InvalidArchive
from sds_clip.app.registry.manifest import FileHash

FORMAT = 1
HEADER, ROWS, MANIFEST, FILES = "sds-clip-backup.json", "rows.jsonl", "manifest.json", "files"

_LIMITS = ArchiveLimits()
# A file of a data set lies some folders deeper here than in the archive that was uploaded.
_NAMES = ArchiveLimits(max_name_bytes=_LIMITS.max_name_bytes + 256, max_depth=_LIMITS.max_depth + 8)
_MAX_HEADER_BYTES = 2**20
_MAX_MANIFEST_BYTES = 2**30
_CHUNK_BYTES = 2**20


@dataclass(frozen=True)
class Header:
    """The first file of a backup."""

    program: str
    """The release that wrote it."""
    revision: str
    """The revision of the tables."""
    created_at: float
    rows: dict[str, int]
    """How many rows each table has."""


class ArchiveWriter:
    """Writes a backup. Raises OSError."""

    def __init__(self, out: BinaryIO, header: Header) -> None:
        target = cast(BinaryIO, _Counting(out))
        self._tar = tarfile.TarFile(
            fileobj=target, mode="w", format=tarfile.PAX_FORMAT, copybufsize=_CHUNK_BYTES
        )
        self._files: dict[str, FileHash] = {}
        self._add_text(HEADER, {"format": FORMAT, **asdict(header)})

    @property
    def size_bytes(self) -> int:
        return sum(file.size for file in self._files.values())

    def add_file(self, name: str, path: Path) -> None:
        """Add a file that does not change meanwhile."""
        with path.open("rb") as file:
            status = path.stat()
            hashing = _Hashing(file)
            self._tar.addfile(_info(name, status.st_size, status.st_mtime), cast(BinaryIO, hashing))
        self._files[name] = FileHash(hashing.sha256, status.st_size)

    def add_tree(self, name: str, folder: Path) -> None:
        """Add the files and folders of a folder, in order."""
        info = _info(name)
        info.type, info.mode = tarfile.DIRTYPE, 0o755
        self._tar.addfile(info)
        for entry in sorted(folder.iterdir()):
            (self.add_tree if entry.is_dir() else self.add_file)(f"{name}/{entry.name}", entry)

    def finish(self, missing: list[dict[str, str]]) -> None:
        """Add the manifest, after which the archive is complete."""
        files = {name: asdict(file) for name, file in self._files.items()}
        self._add_text(MANIFEST, {"format": FORMAT, "files": files, "missing": missing})
        self._tar.close()

    def _add_text(self, name: str, content: dict[str, Any]) -> None:
        text = json.dumps(content).encode() + b"\n"
        self._tar.addfile(_info(name, len(text)), io.BytesIO(text))
        self._files[name] = FileHash(hashlib.sha256(text).hexdigest(), len(text))


class ArchiveReader:
    """Reads a backup, which is not trusted: only plain files and folders, below the folders that it may have.

    Raises: BackupError for a damaged or incomplete archive, or one of a newer format; OSError.
    """

    def __init__(self, source: BinaryIO) -> None:
        self._files: dict[str, FileHash] = {}
        self._members = read_tar(Forwards(iter(partial(source.read, _CHUNK_BYTES), b"")))
        content = self._json(self._next(HEADER), _MAX_HEADER_BYTES)
        try:
            if content.pop("format") != FORMAT:
                raise BackupError(
                    "A newer version of this program wrote the backup. Restore it with that one."
                )
            self.header = Header(**content)
        except (KeyError, TypeError) as error:
            raise damaged(f"{HEADER} lacks a field or has another one") from error

    def unpack_rows(self, path: Path) -> None:
        self._write(self._next(ROWS), path)

    def unpack_files(self, target: Path, folders: set[str]) -> list[dict[str, str]]:
        """Unpack the files into `target`, and check everything by the manifest. Return what the backup lacked.

        `folders` are the folders that may have files.
        """
        while (member := self._next()).name != MANIFEST:
            parts = self._parts(member)
            if parts[0] != FILES or not _lies_in("/".join(parts[1:]), folders):
                raise damaged(f"{member.name} is named by no row")
            path = target.joinpath(*parts[1:])
            try:
                if member.is_folder:
                    path.mkdir(parents=True, exist_ok=True)
                else:
                    path.parent.mkdir(parents=True, exist_ok=True)
                    self._write(member, path)
            except (FileExistsError, NotADirectoryError) as error:
                raise damaged(f"{member.name} is there twice") from error
        content = self._json(member, _MAX_MANIFEST_BYTES)
        del self._files[MANIFEST]
        try:
            expected = {name: FileHash(**entry) for name, entry in content["files"].items()}
            missing = [{"what": str(each["what"]), "id": str(each["id"])} for each in content["missing"]]
        except (KeyError, TypeError, AttributeError) as error:
            raise damaged(f"{MANIFEST} lacks a field or has another one") from error
        wrong = sorted(name for name, entry in self._files.items() ^ expected.items())
        if wrong:
            raise damaged(f"{wrong[0]} is not the file that was written")
        if self._following() is not None:
            raise damaged("there are files after the manifest")
        return missing

    def _next(self, name: str | None = None) -> Member:
        member = self._following()
        if member is None:
            raise damaged("it has no manifest, so it was never finished")
        if name is not None and member.name != name:
            raise damaged(f"{name} is expected, but {member.name} is there")
        return member

    def _following(self) -> Member | None:
        with _translated():
            return next(self._members, None)

    def _parts(self, member: Member) -> tuple[str, ...]:
        with _translated():
            parts = member_parts(member.name, _NAMES, is_folder=member.is_folder)
        if "/".join(parts) != member.name.removesuffix("/"):
            raise damaged(f"the name {member.name!r} has another form than a backup writes")
        return parts

    def _write(self, member: Member, path: Path) -> None:
        with create_file(path) as file:
            for chunk in self._content(member):
                write_all(file, chunk)

    def _json(self, member: Member, max_bytes: int) -> dict[str, Any]:
        if member.size_bytes > max_bytes:
            raise damaged(f"{member.name} has more than {max_bytes} bytes")
        text = b"".join(self._content(member))
        try:
            content = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise damaged(f"{member.name} is not JSON") from error
        if not isinstance(content, dict):
            raise damaged(f"{member.name} is not a JSON object")
        return content

    def _content(self, member: Member) -> Iterator[bytes]:
        """Yield the content, and then note its size and hash."""
        if member.is_folder:
            raise damaged(f"{member.name} is a folder")
        hashing, size = hashlib.sha256(), 0
        with _translated():
            for chunk in member.content:
                hashing.update(chunk)
                size += len(chunk)
                yield chunk
        self._files[member.name] = FileHash(hashing.hexdigest(), size)


def damaged(why: str) -> BackupError:
    return BackupError(
        f"The archive is damaged or incomplete, or is no backup of this program: {why}. Nothing was restored. "
        "Restore another backup."
    )


@contextmanager
def _translated() -> Iterator[None]:
    """Turn the refusals of archives into errors of a backup."""
    try:
        yield
    except InvalidArchive as error:
        raise damaged(error.message.rstrip(".")) from error


class _Hashing:
    """A file that computes its hash while it is read."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._hash = hashlib.sha256()

    @property
    def sha256(self) -> str:
        return self._hash.hexdigest()

    def read(self, size: int = -1) -> bytes:
        data = self._file.read(size)
        self._hash.update(data)
        return data


class _Counting:
    """A stream to write to, such as a pipe, that knows how far it is."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._offset = 0

    def write(self, data: bytes) -> int:
        write_all(self._stream, data)  # standard output may be unbuffered
        self._offset += len(data)
        return len(data)

    def tell(self) -> int:
        return self._offset


def _info(name: str, size: int = 0, modified_at: float = 0.0) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.size, info.mtime = size, int(modified_at)
    return info


def _lies_in(path: str, folders: set[str]) -> bool:
    """Whether the path is one of these folders, or lies below one of them."""
    parts = path.split("/")
    return any("/".join(parts[:length]) in folders for length in (2, 3))
