"""Embeds images with a CLIP in this process. It stands apart, because a client of a service has no torch."""

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from sds_clip.models.choices import DECODINGS
from sds_clip.models.clip.encode import encode_texts
from sds_clip.models.clip.model import Clip
from sds_clip.models.clip.packed import pack
from sds_clip.models.errors import VectorsError
from sds_clip.models.images.decode import ImageLimits, decode_image
from sds_clip.models.vectors.encoder import Encoder


class ClipEncoder(Encoder):
    """Embeds with a CLIP as the service's /embed does. With `keep_decoding` it decodes for every file alike."""

    def __init__(self, clip: Clip, limits: ImageLimits, *, keep_decoding: bool = False) -> None:
        self._clip, self._limits, self._keep_decoding = clip, limits, keep_decoding
        self.version, self.dimensions = clip.version, clip.embed_dim
        self.reference, self.precision = clip.reference, clip.precision
        self.decoding = DECODINGS[clip.decoding]

    def decode_as(self, decoding: int) -> None:
        for name, number in DECODINGS.items():
            if number == decoding and not self._keep_decoding:
                self._clip, self.decoding = replace(self._clip, decoding=name), number

    def prepare(self, data: bytes) -> Tensor:
        image = decode_image(data, self._limits, least_side=self._clip.least_side)
        pixels: Tensor = self._clip.preprocess(image)
        return pixels

    def encode(self, prepared: Sequence[Tensor]) -> Sequence[np.ndarray]:
        """Raises VectorsError if the model's numbers are not finite."""
        return self._encode(self._packed, prepared)

    @cached_property
    def _packed(self) -> Clip:
        """Packing takes as long as it spares some twenty images, so that a query alone does without."""
        return pack(self._clip)

    def _encode(self, clip: Clip, prepared: Sequence[Tensor]) -> Sequence[np.ndarray]:
        features = clip.encode_image(torch.stack(list(prepared))).float().cpu()
        if not bool(features.isfinite().all()):
            raise VectorsError(
                "The model computed numbers that are not finite; try --precision float32, or other weights."
            )
        return list(features.numpy())

    def encode_text(self, text: str) -> np.ndarray:
        return encode_texts(self._clip, [text])[0].numpy()

    def encode_query(self, image: bytes) -> np.ndarray:
        """Return the embedding of one image. Raises ImageError, VectorsError."""
        return self._encode(self._clip, [self.prepare(image)])[0]
