"""Caption embeddings kept on disk, so that the text encoder sees each caption once over many runs."""

import hashlib
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from threading import Lock
from uuid import uuid4

import torch
from jaxtyping import Float
from safetensors.torch import load, save
from torch import Tensor

from models.teacher.errors import TeacherError

_DIGEST_BYTES = 32


class CaptionCache:
    """One file a caption, in 256 subfolders; those used last stay in memory too.

    Threads may share one, and processes a folder.
    A file holds the sha256 of what follows and the embedding in safetensors: one that is cut short or altered is
    a miss, and is written anew. For Stable Diffusion 1.5 in bfloat16 a caption takes 118 KB.
    """

    def __init__(self, folder: Path, *, memory_bytes: int = 256 * 2**20) -> None:
        self.folder = folder
        self._memory_bytes = memory_bytes
        self._held: OrderedDict[str, Tensor] = OrderedDict()
        self._held_bytes = 0
        self._lock = Lock()

    def get_many(
        self, version: str, captions: Sequence[str], dtype: torch.dtype
    ) -> list[Float[Tensor, "s e"] | None]:
        """The embeddings of captions by the teacher of this version, on the CPU; None where one is not here."""
        return [self._get(_key(version, caption, dtype)) for caption in captions]

    def put_many(self, version: str, captions: Sequence[str], embeddings: Float[Tensor, "n s e"]) -> None:
        """Keep embeddings, one a caption.

        Raises:
            TeacherError: the folder cannot be written.
        """
        for caption, embedding in zip(captions, embeddings.detach().cpu(), strict=True):
            key = _key(version, caption, embedding.dtype)
            self._write(key, embedding)
            self._hold(key, embedding.clone())

    def _get(self, key: str) -> Tensor | None:
        with self._lock:
            if key in self._held:
                self._held.move_to_end(key)
                return self._held[key]
        try:
            stored = self._path(key).read_bytes()
        except OSError:
            return None
        digest, payload = stored[:_DIGEST_BYTES], stored[_DIGEST_BYTES:]
        if hashlib.sha256(payload).digest() != digest:
            return None
        embedding = load(payload)["embedding"]
        self._hold(key, embedding)
        return embedding

    def _hold(self, key: str, embedding: Tensor) -> None:
        with self._lock:
            if key in self._held:
                return
            self._held[key] = embedding
            self._held_bytes += embedding.nbytes
            while self._held_bytes > self._memory_bytes:
                _, oldest = self._held.popitem(last=False)
                self._held_bytes -= oldest.nbytes

    def _write(self, key: str, embedding: Tensor) -> None:
        payload = save({"embedding": embedding.contiguous()})
        path = self._path(key)
        # A name of its own, so that two processes with one caption do not write into one file.
        unfinished = path.with_name(f".{uuid4().hex}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            unfinished.write_bytes(hashlib.sha256(payload).digest() + payload)
            unfinished.replace(path)
        except OSError as error:
            raise TeacherError(
                f"The caption cache {self.folder} cannot be written ({error.strerror}); free space there, or "
                "name another folder."
            ) from error
        finally:
            with suppress(OSError):
                unfinished.unlink()

    def _path(self, key: str) -> Path:
        return self.folder / key[:2] / key


def _key(version: str, caption: str, dtype: torch.dtype) -> str:
    # surrogatepass: a caption may hold anything that JSON can spell.
    named = f"{version}|{dtype}|".encode() + caption.encode("utf-8", "surrogatepass")
    return hashlib.sha256(named).hexdigest()
