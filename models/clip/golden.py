"""Inputs made from a seed, whose embeddings show that a reloaded network computes the same as the saved one."""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from sds_clip.models.clip.model import Clip

SEED = 0
SENTENCES = ["a red cube left of a blue ball", "two small dogs under the table"]
TOLERANCE = {"float32": 2e-3, "float16": 0.02, "bfloat16": 0.1}
"""How far an embedding may turn, in radians. TF32 turns it by less, GELU in place of QuickGELU by more."""


@dataclass(frozen=True, eq=False)
class Golden:
    """L2-normalised float32 features on the CPU, of two noise images and of `SENTENCES`."""

    seed: int
    image_features: Float[Tensor, "n d"]
    text_features: Float[Tensor, "n d"]

    @classmethod
    def of(cls, clip: Clip, seed: int = SEED) -> "Golden":
        # numpy's RandomState is frozen: it gives the same numbers in every version, on every machine.
        noise = np.random.RandomState(seed).standard_normal((2, 3, *clip.image_size))
        images = clip.encode_image(torch.from_numpy(noise.astype(np.float32)))
        texts = clip.encode_text(clip.tokenizer(SENTENCES))
        return cls(seed, images.cpu().clone(), texts.cpu().clone())

    def angle(self, clip: Clip) -> float:
        """Return the largest angle between these features and a network's own, in radians.

        It is infinite if the shapes differ.
        """
        other = Golden.of(clip, self.seed)
        ours, theirs = _rows(self), _rows(other)
        if [value.shape for value in ours] != [value.shape for value in theirs]:
            return float("inf")
        # The chord, not the cosine: in float32 the cosine cannot resolve small angles.
        return max(float((a - b).norm(dim=-1).max()) for a, b in zip(ours, theirs, strict=True))


def _rows(golden: Golden) -> list[Tensor]:
    return [F.normalize(value, dim=-1) for value in (golden.image_features, golden.text_features)]
