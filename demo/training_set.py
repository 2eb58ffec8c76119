"""The pairs that the demo's distillation trains on, in memory."""

from __future__ import annotations

import hashlib

import numpy as np
import PIL.Image

from demo.sets import pairs
from demo.world import Split
from models.data.negatives import swap_negatives
from models.data.pairs import PairSet, Sample

DISTILLATION_SEED = 2000  # differs from the student's and the teacher's
SHUFFLING_SEED = 2001
SWAPS = 3


class DemoPairs(PairSet):
    """The first `size` pairs of a part, drawn from a seed; captions as they are, or `shuffled`."""

    def __init__(
        self,
        size: int,
        seed: int = DISTILLATION_SEED,
        split: Split = Split.TRAIN,
        *,
        shuffled: bool = False,
    ) -> None:
        drawn = pairs(split, seed, 0, size)
        self._images, self._captions, self.scenes = drawn.images, drawn.captions, drawn.scenes
        if shuffled:
            self._captions = [shuffled_caption(text, index) for index, text in enumerate(drawn.captions)]
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
        """The pair's caption; there are no negatives of its own."""
        return Sample(f"pair {index}", (self._captions[index],), ((),))

    def image(self, index: int) -> PIL.Image.Image:
        return PIL.Image.fromarray(self._images[index])


def shuffled_caption(caption: str, index: int) -> str:
    """A caption or one of its swaps, all equally likely: its words tell what is seen, but not the pairing.

    A pure function of both arguments. A caption without swaps, such as one of a single object, stays.
    """
    said = (caption, *swap_negatives(caption, SWAPS, seed=SHUFFLING_SEED, index=index))
    return said[np.random.default_rng((SHUFFLING_SEED, index)).integers(len(said))]
