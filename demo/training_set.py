"""The pairs that the demo's distillation trains on, in memory."""

from __future__ import annotations

import hashlib

import PIL.Image

from demo.sets import pairs
from demo.world import Split
from models.data.pairs import PairSet, Sample

DISTILLATION_SEED = 2000  # apart from the student's and the teacher's


class DemoPairs(PairSet):
    """The first `size` pairs of a part, drawn from a seed."""

    def __init__(self, size: int, seed: int = DISTILLATION_SEED, split: Split = Split.TRAIN) -> None:
        drawn = pairs(split, seed, 0, size)
        self._images, self._captions, self.scenes = drawn.images, drawn.captions, drawn.scenes
        digest = hashlib.sha256(self._images.tobytes())
        digest.update("\n".join(self._captions).encode())
        self._hash = digest.hexdigest()

    @property
    def content_hash(self) -> str:
        """SHA-256 of the pixels and captions."""
        return self._hash

    def __len__(self) -> int:
        return len(self._captions)

    def sample(self, index: int) -> Sample:
        """The pair's caption; it has no negatives of its own."""
        return Sample(f"pair {index}", (self._captions[index],), ((),))

    def image(self, index: int) -> PIL.Image.Image:
        """The pair's image."""
        return PIL.Image.fromarray(self._images[index])
