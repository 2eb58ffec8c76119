"""Features on disk, by content: what was computed once is not computed again, also after a run that was killed."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from models.evaluation.errors import EvaluationError, StoreInUse

_KEY_BYTES = 32
_RECORD = np.dtype([("key", f"V{_KEY_BYTES}"), ("row", "<u8")])
_CHECKED_ROWS = 65_536


class FeatureStore:
    """Rows of float32, found by 32-byte keys, of which several may name one row. For one process at a time.

    NAME.f32 holds the rows and NAME.keys the keys; rows are written before their keys, so that whatever a kill
    leaves is whole or cut off. Rows that are not unit vectors are damaged, as a power cut leaves zeros, and go with
    all that follow them.
    """

    def __init__(self, folder: Path, name: str, width: int) -> None:
        """Open or create the store.

        Raises:
            StoreInUse: another run uses it.
            EvaluationError: the file system has no locks.
        """
        # Not `exist_ok`, which looks again: the folder may be dropped meanwhile.
        with suppress(FileExistsError):
            folder.mkdir(parents=True)
        self._width = width
        self._rows_path = folder / f"{name}.f32"
        with ExitStack() as opened:
            self._keys_file = opened.enter_context(_open_alone(folder / f"{name}.keys"))
            self._rows_file = opened.enter_context(self._rows_path.open("a+b"))
            self._count = self._whole_rows()
            self._row_of = self._read_keys()
            self._rows_file.truncate(self._count * 4 * width)
            self._files = opened.pop_all()

    def __enter__(self) -> FeatureStore:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the files."""
        self._files.close()

    def __len__(self) -> int:
        """Rows."""
        return self._count

    def __contains__(self, key: bytes) -> bool:
        return key in self._row_of

    def row(self, key: bytes) -> int:
        """Where a key's features are; KeyError where they are not."""
        return self._row_of[key]

    def add(self, features: Float[Tensor, "n d"]) -> range:
        """Append rows, which no key names yet."""
        data = np.ascontiguousarray(features.float().cpu().numpy(), dtype="<f4")
        self._rows_file.write(data.tobytes())
        self._rows_file.flush()
        start, self._count = self._count, self._count + len(data)
        return range(start, self._count)

    def name(self, rows: dict[bytes, int]) -> None:
        """Let keys name rows that have been added."""
        if not rows:
            return
        records = np.zeros(len(rows), dtype=_RECORD)
        records["key"] = [np.void(key) for key in rows]
        records["row"] = list(rows.values())
        self._keys_file.write(records.tobytes())
        self._keys_file.flush()
        self._row_of.update(rows)

    def take(self, keys: Sequence[bytes]) -> Float[Tensor, "n d"]:
        """The features under the keys, in their order; read from disk, and only they are held."""
        rows = [self._row_of[key] for key in keys]
        if not rows:
            return torch.empty(0, self._width)
        stored = np.memmap(self._rows_path, dtype="<f4", mode="r", shape=(self._count, self._width))
        return torch.from_numpy(np.array(stored[rows]))

    def _whole_rows(self) -> int:
        count = os.fstat(self._rows_file.fileno()).st_size // (4 * self._width)
        if count == 0:
            return 0
        stored = np.memmap(self._rows_path, dtype="<f4", mode="r", shape=(count, self._width))
        for start in range(0, count, _CHECKED_ROWS):
            with np.errstate(over="ignore", invalid="ignore"):
                norms = np.linalg.norm(stored[start : start + _CHECKED_ROWS], axis=1)
                damaged = ~(np.abs(norms - 1) < 1e-3)
            if damaged.any():
                return start + int(damaged.argmax())
        return count

    def _read_keys(self) -> dict[bytes, int]:
        self._keys_file.seek(0)
        data = self._keys_file.read()
        whole = len(data) // _RECORD.itemsize
        records = np.frombuffer(data[: whole * _RECORD.itemsize], dtype=_RECORD)
        kept = records[records["row"] < self._count]
        if kept.nbytes < len(data):
            # A key without its row must go from the file too: another row will come to stand in that place.
            self._keys_file.truncate(0)
            self._keys_file.write(kept.tobytes())
            self._keys_file.flush()
        self._count = int(kept["row"].max()) + 1 if len(kept) else 0
        return {bytes(record["key"]): int(record["row"]) for record in kept}


def drop_store(folder: Path, name: str) -> bool:
    """Remove a folder whose store of this name is opened first, unless it is in use.

    A kill may leave the folder with a dot in front of its name.
    """
    aside = folder.with_name(f".{folder.name}")
    try:
        with _open_alone(folder / f"{name}.keys"):
            folder.rename(aside)
    except (StoreInUse, OSError):
        return False
    shutil.rmtree(aside, ignore_errors=True)
    return True


def _open_alone(path: Path) -> BinaryIO:
    """Open a file to add to, for this process alone, and mark it as used now. Raises StoreInUse."""
    with ExitStack() as opened:
        try:
            file = opened.enter_context(path.open("a+b"))
            _lock(file.fileno())
            os.utime(path)
            if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                opened.pop_all()
                return file
        except (BlockingIOError, FileNotFoundError):  # another has it, or has dropped it meanwhile
            pass
    raise StoreInUse(f"{path.parent}: another run is using it; wait, or choose another folder.")


def _lock(file: int) -> None:
    try:
        import fcntl
    except ImportError:  # no such locks on this system
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise
    except OSError as error:
        raise EvaluationError(
            f"Features cannot be kept there: the file system has no locks ({error.strerror}). Choose another folder."
        ) from error
