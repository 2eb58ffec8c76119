"""Write files and folders that appear whole or not at all, and survive a crash once they are there.

Each is written under a temporary name in the same folder, flushed to disk and renamed. The entry of the
parent folder is flushed last. A crash leaves either the old file or the new one, and perhaps a leftover named
`.NAME.<random>`.
"""

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from sds_clip.models.errors import CheckpointError


@contextmanager
def atomic_file(path: Path, *, mode: int = 0o666, durable: bool = True) -> Iterator[BinaryIO]:
    """Yield a file to write to, which replaces `path` when the block ends without an error.

    The file has `mode` from the moment it is created, so that a secret is never readable by others. Without
    `durable` nothing is flushed to disk; use that for files that are not needed after a crash of the machine.
    Raises OSError.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    working = _beside(path)
    descriptor = os.open(working, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
            if durable:
                file.flush()
                os.fsync(file.fileno())
        os.replace(working, path)
    except BaseException:
        working.unlink(missing_ok=True)
        raise
    if durable:
        sync_folder(path.parent)


def write_atomic(path: Path, content: str | bytes, *, mode: int = 0o666, durable: bool = True) -> None:
    """Replace a file with `content`; text is written as UTF-8. Raises OSError."""
    with atomic_file(path, mode=mode, durable=durable) as file:
        file.write(content.encode() if isinstance(content, str) else content)


@contextmanager
def atomic_folder(out: Path) -> Iterator[Path]:
    """Yield a temporary folder beside `out`, which is renamed to `out` when the block ends without an error.

    Raises CheckpointError if `out` exists or cannot be written (a full disk, for example); nothing is left
    behind then.
    """
    # A client of a service, which writes files alone, does without safetensors.
    from safetensors import SafetensorError

    if out.exists() or out.is_symlink():
        raise CheckpointError(f"{out} already exists; choose another folder.")
    working = _beside(out.absolute())
    try:
        working.mkdir(parents=True)
        yield working
        _sync_tree(working)
        os.rename(working, out)
        sync_folder(working.parent)
    except (OSError, SafetensorError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise CheckpointError(
            f"{out} cannot be written ({reason}), and no part of it was kept. Free some space, or "
            "choose a folder that you may write to."
        ) from error
    finally:
        shutil.rmtree(working, ignore_errors=True)


def sync_folder(folder: Path) -> None:
    """Flush a folder's own entry, and so the names in it, to disk. Raises OSError."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _beside(path: Path) -> Path:
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}")


def _sync_tree(folder: Path) -> None:
    for here, _, names in os.walk(folder):
        for name in names:
            file = Path(here, name)
            file.chmod(0o644)  # safetensors creates files that only their owner may read
            with file.open("rb") as opened:
                os.fsync(opened.fileno())
        sync_folder(Path(here))
