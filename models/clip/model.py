"""A loaded CLIP: the network and everything that belongs to it, ready to encode."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import PIL.Image
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from sds_clip.models.clip.precision import DTYPES
from sds_clip.models.clip.short_texts import encode_text, without_padding
from sds_clip.models.clip.tokenizers import Tokenizer
from sds_clip.models.clip.version import Identity

RESNET_STRIDE = 32
"""How many pixels of a ResNet's input, in each direction, one place of its last feature map stands for."""


@dataclass(frozen=True, eq=False)
class Clip:
    """One checkpoint in memory. It is immutable: another version is another Clip."""

    reference: str
    """The normalised reference it was loaded by."""
    architecture: str
    """open_clip's name for it, or the folder's name if open_clip has no such configuration."""
    version: str
    """sha256 over the stored weights and everything else that changes a result; see `sds_clip.models.clip.version`."""
    identity: Identity
    """The parts that the version is a hash of."""
    network: nn.Module
    preprocess: Callable[[PIL.Image.Image], Float[Tensor, "3 h w"]]
    """open_clip's inference transform for this checkpoint. Its output is float32 on the CPU."""
    tokenizer: Tokenizer
    precision: str
    device: torch.device
    logit_scale: float
    """The factor itself: exp() has been applied."""
    logit_bias: float | None
    """Set if the model was trained on each pair alone (SigLIP). Its probabilities are then sigmoids."""
    embed_dim: int
    dimensions: tuple[int, ...]
    """The shorter lengths at which the model's embeddings may be used, if it was trained for that."""
    image_size: tuple[int, int]
    context_length: int
    quick_gelu: bool
    parameters: int
    size_bytes: int
    decoding: str = "full"
    """`full`, or `scaled`: serving decodes large JPEGs at a smaller size (decision 93)."""
    packed: bool = False
    """Whether it computes with packed weights (`sds_clip.models.clip.packed`). `size_bytes` counts all that is held."""
    alone: str | None = None
    """Why a server computes no other version in one batch with it. It is None if others may share its batches."""

    @property
    def least_side(self) -> int:
        """The pixels that decoding leaves on the shorter side of a JPEG that had more; 0 if it leaves all.

        Twice the input's size, so that the model's own resizing still halves what the decoder made.
        """
        return 2 * max(self.image_size) if self.decoding == "scaled" else 0

    @property
    def patches(self) -> int:
        """The number of patches, or of places in a ResNet's last feature map, that an image is cut into."""
        visual: Any = self.network.visual
        if hasattr(visual, "grid_size"):
            return math.prod(visual.grid_size)
        if hasattr(visual, "trunk"):
            return int(visual.trunk.patch_embed.num_patches)
        return math.prod(side // RESNET_STRIDE for side in self.image_size)

    @torch.inference_mode()
    def encode_image(
        self, pixels: Float[Tensor, "b 3 h w"], *, normalize: bool = True
    ) -> Float[Tensor, "b d"]:
        """Encode preprocessed images into float32 features on the model's device, normalised in float32."""
        if not len(pixels):
            return torch.zeros(0, self.embed_dim, device=self.device)
        pixels = pixels.to(self.device, DTYPES[self.precision])
        network: Any = self.network
        return _finish(network.encode_image(pixels, normalize=False), normalize)

    @torch.inference_mode()
    def encode_text(
        self, tokens: Int[Tensor, "n context"], *, normalize: bool = True
    ) -> Float[Tensor, "n d"]:
        """Encode tokenized texts into float32 features on the model's device, normalised in float32."""
        if not len(tokens):
            return torch.zeros(0, self.embed_dim, device=self.device)
        tokens = without_padding(self.network, tokens).to(self.device)
        return _finish(encode_text(self.network, tokens), normalize)


def _finish(features: Tensor, normalize: bool) -> Tensor:
    features = features.float()
    return F.normalize(features, dim=-1) if normalize else features
