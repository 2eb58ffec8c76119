"""Features and scores that were computed, kept for this run and, in a shared cache, for later ones (decision 31).

The cache may lose rows at any time, so a run depends only on what it finds there when it asks. Keys are
hashes of content (an image's file and box, or tokens), combined with the name of what computed the row.
"""

import hashlib
import json
import struct
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from sds_clip.models.disk_cache import DiskCache

_ROWS_AT_ONCE = 4096  # bounds the memory of one fetch


def open_cache(folder: Path, max_bytes: int | None = None) -> DiskCache:
    """Open the cache of a folder. Runs of any models may share one."""
    return DiskCache(folder / "kept.sqlite3", max_bytes=max_bytes)


class KeptFeatures:
    """Rows of float32 by key. This run's rows are in a temporary file, so that memory holds only keys.

    Several names can stand for one key. Two files with equal pixels therefore share one row, equal to the last bit.
    """

    def __init__(self, cache: DiskCache, computed_by: str, width: int) -> None:
        self._cache = cache
        self._computed_by = computed_by
        self._width = width
        self._row_of: dict[bytes, int] = {}
        self._count = 0
        # Beside the cache if possible: /tmp may be in memory, and has no reserve.
        folder = cache.folder if cache.folder.is_dir() else None
        self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 (as long as the run)

    def __contains__(self, key: bytes) -> bool:
        return key in self._row_of

    def close(self) -> None:
        self._file.close()

    def fetch(self, keys: Iterable[bytes]) -> None:
        """Copy the rows that this run does not have yet from the cache."""
        wanted = {self._place("row", key): key for key in keys if key not in self._row_of}
        places = list(wanted)
        for start in range(0, len(places), _ROWS_AT_ONCE):
            found = self._cache.get_many(places[start : start + _ROWS_AT_ONCE])
            whole = {wanted[place]: row for place, row in found.items() if len(row) == 4 * self._width}
            self._append(list(whole), b"".join(whole.values()))

    def fetch_named(self, names: Iterable[bytes]) -> None:
        """Copy the rows that names refer to from the cache."""
        wanted = {self._place("name", name): name for name in names if name not in self._row_of}
        keys = {wanted[place]: key for place, key in self._cache.get_many(wanted).items()}
        self.fetch(dict.fromkeys(keys.values()))
        self._row_of |= {name: self._row_of[key] for name, key in keys.items() if key in self._row_of}

    def add(self, keys: Sequence[bytes], features: Float[Tensor, "n d"]) -> None:
        rows = np.ascontiguousarray(features.float().cpu().numpy(), dtype="<f4")
        self._append(keys, rows.tobytes())
        self._cache.put_many(
            {self._place("row", key): row.tobytes() for key, row in zip(keys, rows, strict=True)}
        )

    def name(self, key_of: Mapping[bytes, bytes]) -> None:
        """Make names refer to keys whose rows are here."""
        self._row_of |= {name: self._row_of[key] for name, key in key_of.items()}
        self._cache.put_many({self._place("name", name): key for name, key in key_of.items()})

    def take(self, keys: Sequence[bytes]) -> Float[Tensor, "n d"]:
        """Return the rows of keys or names, in their order. Raises KeyError if one is not here."""
        rows = [self._row_of[key] for key in keys]
        if not rows:
            return torch.empty(0, self._width)
        stored = np.memmap(self._file, dtype="<f4", mode="r", shape=(self._count, self._width))
        return torch.from_numpy(np.array(stored[rows]))

    def _append(self, keys: Sequence[bytes], rows: bytes) -> None:
        self._file.seek(0, 2)
        self._file.write(rows)
        self._file.flush()
        self._row_of |= {key: self._count + number for number, key in enumerate(keys)}
        self._count += len(keys)

    def _place(self, kind: str, key: bytes) -> bytes:
        return hashlib.sha256(f"{self._computed_by}|{kind}|".encode() + key).digest()


class KeptErrors:
    """Denoising errors d(x, c) by an image's content and a caption."""

    def __init__(self, cache: DiskCache, computed_by: str) -> None:
        self._cache = cache
        self._computed_by = computed_by
        self._d: dict[tuple[str, str], float] = {}

    def __contains__(self, pair: tuple[str, str]) -> bool:
        return pair in self._d

    def fetch(self, pairs: Iterable[tuple[str, str]]) -> None:
        wanted = {self._place(pair): pair for pair in pairs if pair not in self._d}
        found = self._cache.get_many(wanted)
        self._d |= {wanted[place]: struct.unpack("<d", d)[0] for place, d in found.items()}

    def add(self, images: Sequence[str], captions: Sequence[str], d: Float[Tensor, "n m"]) -> None:
        """Keep d `[caption, image]`, here and in the cache."""
        new = {
            (image, caption): value
            for caption, row in zip(captions, d.tolist(), strict=True)
            for image, value in zip(images, row, strict=True)
        }
        self._d |= new
        self._cache.put_many({self._place(pair): struct.pack("<d", value) for pair, value in new.items()})

    def take(self, images: Sequence[str], captions: Sequence[str]) -> Float[Tensor, "n m"]:
        """Return d `[caption, image]` in float64. Raises KeyError if one is not here."""
        rows = [[self._d[image, caption] for image in images] for caption in captions]
        return torch.tensor(rows, dtype=torch.float64)

    def _place(self, pair: tuple[str, str]) -> bytes:
        return hashlib.sha256(json.dumps([self._computed_by, *pair]).encode()).digest()
