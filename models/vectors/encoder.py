"""What makes an embedding of an image: a model in this process, or a service (sds_clip/commands/embed.py)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from models.clip import Clip
from models.errors import VectorsError
from models.images import ImageLimits, decode_image


@dataclass(frozen=True)
class Problem:
    """Why an image has no embedding."""

    code: str
    message: str


class Encoder(ABC):
    """Embeds images in two steps, so that threads prepare the next ones meanwhile."""

    version: str
    reference: str | None
    precision: str | None
    dimensions: int

    @abstractmethod
    def prepare(self, data: bytes) -> Any:
        """Return what `encode` takes, from an image's bytes. Called by several threads. Raises ImageError."""

    @abstractmethod
    def encode(self, prepared: Sequence[Any]) -> Sequence[np.ndarray | Problem]:
        """Return each image's L2-normalised float32 embedding, or why it has none. Called by one thread."""


class ClipEncoder(Encoder):
    """Embeds with a CLIP as the service's /embed does."""

    def __init__(self, clip: Clip, limits: ImageLimits) -> None:
        self._clip, self._limits = clip, limits
        self.version, self.dimensions = clip.version, clip.embed_dim
        self.reference, self.precision = clip.reference, clip.precision

    def prepare(self, data: bytes) -> Tensor:
        pixels: Tensor = self._clip.preprocess(decode_image(data, self._limits))
        return pixels

    def encode(self, prepared: Sequence[Tensor]) -> Sequence[np.ndarray]:
        """Raises VectorsError if the model's numbers are not finite."""
        features = self._clip.encode_image(torch.stack(list(prepared))).float().cpu()
        if not bool(features.isfinite().all()):
            raise VectorsError(
                "The model computed numbers that are not finite; try --precision float32, or other weights."
            )
        return list(features.numpy())
