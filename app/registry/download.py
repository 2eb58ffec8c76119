"""A version as a tar stream: its published files, or full weights made from a delta on request."""

import asyncio
import contextlib
import io
import logging
import shutil
import tarfile
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import torch

from sds_clip.app.budgets import Budget
from sds_clip.app.errors import CannotExport, NotPublished
from sds_clip.app.inside import version_folder
from sds_clip.app.registry.bases import AllowedBases
from sds_clip.app.registry.publish import lies_among
from sds_clip.app.store.records import Version, VersionStatus
from sds_clip.app.threads import in_own_thread, with_one_torch_thread
from sds_clip.models.checkpoints.delta_file import read_description
from sds_clip.models.checkpoints.load import unfold
from sds_clip.models.checkpoints.references import Folder, is_delta
from sds_clip.models.errors import CheckpointError
from sds_clip.models.export.write import export_full

logger = logging.getLogger(__name__)

_CHUNK_BYTES = 2**20
_BLOCK = tarfile.BLOCKSIZE
_FORGET_EXPORTS_S = 24 * 3600.0


@dataclass(frozen=True)
class Download:
    """A folder to be sent as a tar stream, under the name `root`."""

    root: str
    folder: Path
    modified_at: float
    holder: ExitStack
    """The caller closes it after sending, which removes a folder that was made for the download."""

    @property
    def size_bytes(self) -> int:
        sizes = [file.stat().st_size for file in _files(self.folder)]
        return sum(_BLOCK + _padded(size) for size in sizes) + 2 * _BLOCK

    def chunks(self) -> Iterator[bytes]:
        """The stream. All files are opened first, so deleting the version meanwhile does no harm."""
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
    """Prepares downloads. Making full weights takes memory, disk and time, so only one runs at a time.

    `bases` are the operator's references. The base of a delta is loaded only from these or from a published
    version.
    """

    def __init__(self, data_dir: Path, bases: Iterable[str]) -> None:
        self._data_dir = data_dir
        self._allowed = AllowedBases(bases)
        self._exports = data_dir / "exports"
        self._making = Budget(1, "exports", retry_after_s=lambda: 10)
        _forget(self._exports)

    async def of(self, version: Version, *, full: bool) -> Download:
        """A version's files. Raises NotPublished, FilesOutside, CannotExport, Overloaded."""
        if version.folder is None or version.status is VersionStatus.DELETED:
            raise NotPublished(
                "This server has no files for this version, because the version is the operator's own model or was "
                "deleted.",
                param="version",
            )
        folder = version_folder(self._data_dir, version.folder)
        if not folder.is_dir():
            raise NotPublished("The files of this version are gone; submit its job again.", param="version")
        root = f"sds-clip-{version.id[:12]}"
        if not full or not is_delta(folder):
            return Download(root, folder, version.created_at, ExitStack())
        making = asyncio.create_task(self._make(version, folder, f"{root}-full"), name=f"export {root}")
        try:
            # A thread cannot be stopped, so the export keeps its place until it is done.
            return await asyncio.shield(making)
        except asyncio.CancelledError:
            making.add_done_callback(_discard)
            raise

    async def _make(self, version: Version, folder: Path, root: str) -> Download:
        threads = torch.get_num_threads()
        with self._making.hold(), ExitStack() as holder:
            self._exports.mkdir(parents=True, exist_ok=True)
            scratch = Path(holder.enter_context(tempfile.TemporaryDirectory(dir=self._exports)))

            def export() -> Path:
                return with_one_torch_thread(lambda: self._export(folder, scratch / "full"), threads)

            try:
                made = await in_own_thread(export, f"export {version.id[:12]}")
            except CheckpointError as error:
                logger.error("Version %s cannot be exported: %s", version.id[:12], error)
                raise CannotExport(
                    f"The full weights of version {version.id[:12]} cannot be made; the server's log says why.",
                    param="version",
                ) from error
            return Download(root, made, version.created_at, holder.pop_all())

    def _export(self, folder: Path, out: Path) -> Path:
        """Make full weights. Runs in a thread. Raises CheckpointError."""
        reference = Folder(str(folder.absolute()))
        base, deltas = unfold(reference)
        if not lies_among(base, folder.parent):
            self._allowed.check(str(base), read_description(Path(deltas[-1].path)).base_version)
        return export_full(str(reference), out)


def _discard(making: "asyncio.Task[Download]") -> None:
    """Remove what was made for a client that has disconnected."""
    if not making.cancelled() and making.exception() is None:
        making.result().holder.close()


def _forget(exports: Path) -> None:
    """Remove what killed processes have left.

    Only old folders are removed, because other processes may be exporting here. An export takes minutes, and
    its files are opened when it is sent.
    """
    for scratch in exports.glob("tmp*"):
        with contextlib.suppress(OSError):
            if scratch.stat().st_mtime < time.time() - _FORGET_EXPORTS_S:
                shutil.rmtree(scratch)


def _files(folder: Path) -> list[Path]:
    return sorted(file for file in folder.iterdir() if file.is_file())


def _padded(size: int) -> int:
    return -(-size // _BLOCK) * _BLOCK
