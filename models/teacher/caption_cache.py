"""Caption embeddings kept on disk, so that many runs pass each caption through the text encoder once."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from threading import Lock

import torch
from cachetools import LRUCache
from jaxtyping import Float
from safetensors.torch import load, save
from torch import Tensor

from sds_clip.models.disk_cache import DiskCache


class CaptionCache:
    """Embeddings by teacher, caption and dtype in `captions.sqlite3`; the last used ones stay in memory too.

    Threads may share one, and processes may share a folder. For Stable Diffusion 1.5 in bfloat16 a caption
    takes 118 KB. Beyond `max_bytes` on disk, those that were not used for longest are dropped.
    """

    def __init__(
        self, folder: Path, *, memory_bytes: int = 256 * 2**20, max_bytes: int | None = None
    ) -> None:
        self._max_bytes = max_bytes
        self._disk = DiskCache(folder / "captions.sqlite3", max_bytes=max_bytes)
        self._memory: LRUCache[bytes, Tensor] = LRUCache(memory_bytes, getsizeof=lambda held: held.nbytes)
        self._lock = Lock()

    def close(self) -> None:
        """Close the file. The next use opens it again."""
        self._disk.close()

    def holds(self, size_bytes: int) -> bool:
        """Whether embeddings of this size in sum are kept."""
        return self._max_bytes is None or size_bytes <= self._max_bytes

    def get_many(
        self, version: str, captions: Sequence[str], dtype: torch.dtype
    ) -> list[Float[Tensor, "s e"] | None]:
        """Return the embeddings of captions by the teacher of this version, on the CPU.

        Missing ones are None.
        """
        keys = [_key(version, caption, dtype) for caption in captions]
        with self._lock:
            found = {key: self._memory[key] for key in keys if key in self._memory}
        stored = self._disk.get_many(key for key in dict.fromkeys(keys) if key not in found)
        for key, value in stored.items():
            found[key] = load(value)["embedding"]
            self._hold(key, found[key])
        return [found.get(key) for key in keys]

    def put_many(self, version: str, captions: Sequence[str], embeddings: Float[Tensor, "n s e"]) -> None:
        # Copied one by one, so that keeping one row does not keep the whole batch in memory.
        rows = [embedding.clone() for embedding in embeddings.detach().cpu()]
        new = {_key(version, caption, row.dtype): row for caption, row in zip(captions, rows, strict=True)}
        self._disk.put_many({key: save({"embedding": row}) for key, row in new.items()})
        for key, row in new.items():
            self._hold(key, row)

    def _hold(self, key: bytes, embedding: Tensor) -> None:
        with self._lock:
            if embedding.nbytes <= self._memory.maxsize:
                self._memory[key] = embedding


def _key(version: str, caption: str, dtype: torch.dtype) -> bytes:
    # surrogatepass: a caption may hold anything that JSON can express, such as lone surrogates.
    named = f"{version}|{dtype}|".encode() + caption.encode("utf-8", "surrogatepass")
    return hashlib.sha256(named).digest()
