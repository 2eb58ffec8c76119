"""What makes an embedding of an image: a model in this process (clip_encoder.py), or a service
(sds_clip/service_encoder.py)."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np

from sds_clip.models.findings import Finding


class Encoder(ABC):
    """Embeds images in two steps, so that threads prepare the next ones meanwhile."""

    version: str
    reference: str | None
    precision: str | None
    decoding: int
    """See `sds_clip.models.choices.DECODINGS`."""
    dimensions: int

    def decode_as(self, decoding: int) -> None:  # noqa: B027
        """Decode as for the rows of an earlier file. An encoder that cannot do so keeps its own way."""

    @abstractmethod
    def prepare(self, data: bytes) -> Any:
        """Return what `encode` takes, from an image's bytes. Called by several threads. Raises ImageError."""

    @abstractmethod
    def encode(self, prepared: Sequence[Any]) -> Sequence[np.ndarray | Finding]:
        """Return each image's L2-normalised float32 embedding, or why it has none. Called by one thread."""
