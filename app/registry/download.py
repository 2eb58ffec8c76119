"""A version as a tar stream: its files as they were published, or whole weights made from a delta for the purpose."""

import io
import logging
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import torch

from app.errors import NotFound
from app.places import Places
from app.serving.threads import in_own_thread, with_one_torch_thread
from app.store.assets import Version, VersionStatus
from app.store.errors import Conflict
from models.delta_file import is_delta
from models.export import export_full
from models.references import CheckpointError, Folder

logger = logging.getLogger(__name__)

_CHUNK_BYTES = 2**20
_BLOCK = tarfile.BLOCKSIZE


class NotPublished(NotFound):
    """A version without files here: an operator's own reference, or one that was deleted."""

    code = "version_not_published"


class CannotExport(Conflict):
    """Whole weights cannot be made: the base cannot be had, or gives something else."""

    code = "cannot_export"


@dataclass(frozen=True)
class Download:
    """A folder to be sent, under the name `root`."""

    root: str
    folder: Path
    modified_at: float
    holder: ExitStack
    """To be closed when it was sent: removes a folder that was made for it."""

    @property
    def size_bytes(self) -> int:
        """Of the whole stream."""
        sizes = [file.stat().st_size for file in _files(self.folder)]
        return sum(_BLOCK + _padded(size) for size in sizes) + 2 * _BLOCK

    def chunks(self) -> Iterator[bytes]:
        """The stream. All files are opened at first, so that one who deletes the version spoils nothing."""
        with ExitStack() as opened:
            files = [(file.name, opened.enter_context(file.open("rb"))) for file in _files(self.folder)]
            for name, file in files:
                size = file.seek(0, io.SEEK_END)
                file.seek(0)
                yield self._header(name, size)
                while chunk := file.read(_CHUNK_BYTES):
                    yield chunk
                yield bytes(_padded(size) - size)
        yield bytes(2 * _BLOCK)

    def _header(self, name: str, size: int) -> bytes:
        info = tarfile.TarInfo(f"{self.root}/{name}")
        info.size, info.mode, info.mtime = size, 0o644, int(self.modified_at)
        return info.tobuf(tarfile.USTAR_FORMAT)


class Downloads:
    """Makes what is sent. Whole weights take memory and disk for a while, so one is made at a time."""

    def __init__(self, data_dir: Path) -> None:
        self._data_dir = data_dir
        self._exports = data_dir / "exports"
        self._making = Places(1, "exports under way", retry_after_s=10)

    async def of(self, version: Version, *, full: bool) -> Download:
        """A version's files. Raises NotPublished, CannotExport, Overloaded."""
        if version.folder is None or version.status is VersionStatus.DELETED:
            raise NotPublished(
                "This version has no files here: it is an operator's own model, or was deleted.",
                param="version",
            )
        folder = self._data_dir / version.folder
        if not folder.is_dir():
            raise NotPublished("The files of this version are gone; run its job again.", param="version")
        root = f"sds-clip-{version.id[:12]}"
        if not full or not is_delta(folder):
            return Download(root, folder, version.created_at, ExitStack())
        with self._making.one():
            return await self._made(version, folder, f"{root}-full")

    async def _made(self, version: Version, folder: Path, root: str) -> Download:
        threads = torch.get_num_threads()
        holder = ExitStack()
        self._exports.mkdir(parents=True, exist_ok=True)
        scratch = Path(holder.enter_context(tempfile.TemporaryDirectory(dir=self._exports)))

        def export() -> Path:
            return with_one_torch_thread(
                lambda: export_full(str(Folder(str(folder.absolute()))), scratch / "full"), threads
            )

        try:
            made = await in_own_thread(export, f"export {version.id[:12]}")
        except CheckpointError as error:
            holder.close()
            logger.error("version %s cannot be exported: %s", version.id[:12], error)
            raise CannotExport(
                f"Whole weights of version {version.id[:12]} cannot be made; the server's log says why.",
                param="version",
            ) from error
        except BaseException:
            holder.close()
            raise
        return Download(root, made, version.created_at, holder)


def _files(folder: Path) -> list[Path]:
    return sorted(file for file in folder.iterdir() if file.is_file())


def _padded(size: int) -> int:
    return -(-size // _BLOCK) * _BLOCK
