"""Denoising errors on disk, by an image's content and a caption: a run that was killed goes on where it was."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor


class DenoisingStore:
    """d(x, c) of pairs of image and caption, in a file that only grows.

    A line holds what was computed at once, behind its own SHA-256: one that is cut off or altered counts as not
    there. Several processes may share a file.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        self._d: dict[tuple[str, str], float] = {}
        for line in path.read_bytes().split(b"\n") if path.exists() else ():
            digest, _, record = line.partition(b" ")
            if digest == _digest(record):
                self._hold(*json.loads(record))

    def __contains__(self, pair: tuple[str, str]) -> bool:
        """Whether the d of (image, caption) is here."""
        return pair in self._d

    def take(self, images: Sequence[str], captions: Sequence[str]) -> Float[Tensor, "n m"]:
        """d `[caption, image]`, float64; KeyError where one is not here."""
        rows = [[self._d[image, caption] for image in images] for caption in captions]
        return torch.tensor(rows, dtype=torch.float64)

    def add(self, images: Sequence[str], captions: Sequence[str], d: Float[Tensor, "n m"]) -> None:
        """Keep d `[caption, image]`."""
        rows = d.tolist()
        record = json.dumps([images, captions, rows]).encode()
        # One write to the end, whoever else writes; in front the newline, because a line there may be cut off.
        with self._path.open("ab", buffering=0) as file:
            file.write(b"\n" + _digest(record) + b" " + record)
        self._hold(images, captions, rows)

    def _hold(self, images: Sequence[str], captions: Sequence[str], rows: list[list[float]]) -> None:
        for caption, row in zip(captions, rows, strict=True):
            for image, d in zip(images, row, strict=True):
                self._d[image, caption] = d


def _digest(record: bytes) -> bytes:
    return hashlib.sha256(record).hexdigest().encode()
