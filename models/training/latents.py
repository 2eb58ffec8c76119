"""The teacher's latents of training images, each encoded once."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from sds_clip.models.clip.model import Clip
from sds_clip.models.data.pairs import PairSet
from sds_clip.models.shapes import Maps
from sds_clip.models.teacher.pixels import teacher_view
from sds_clip.models.teacher.teacher import Teacher

MAX_BYTES = 2**30
"""How much to keep. Once full, no more latents are added and none is dropped."""


class Latents:
    """z_0 of samples, on the teacher's device.

    Each image is encoded alone, so that its latents do not depend on which others were known already.
    """

    def __init__(self, base: Clip, teacher: Teacher, pairs: PairSet) -> None:
        self._teacher, self._pairs = teacher, pairs
        self._view = teacher_view(base, teacher.resolution_px)
        self._known: dict[int, Float[Tensor, "c h w"]] = {}

    def __call__(self, samples: Sequence[int]) -> Maps:
        """Return the latents of samples, which are given by their positions in the data."""
        return torch.stack([self._kept(sample) for sample in samples]).to(self._teacher.device)

    def encode(self, sample: int) -> Float[Tensor, "c h w"]:
        """Encode a sample's image anew, and keep nothing."""
        pixels = self._view(self._pairs.image(sample))[None]
        return self._teacher.encode_image(pixels.to(self._teacher.device))[0]

    def _kept(self, sample: int) -> Float[Tensor, "c h w"]:
        if sample in self._known:
            return self._known[sample]
        latents = self.encode(sample).cpu()
        if (len(self._known) + 1) * latents.nbytes <= MAX_BYTES:
            self._known[sample] = latents
        return latents
