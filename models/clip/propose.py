"""Captions for images that have none: those of a list that a CLIP matches best with each image."""

from collections.abc import Sequence

import PIL.Image
import torch
from jaxtyping import Float
from torch import Tensor

from sds_clip.models.clip.encode import encode_images
from sds_clip.models.clip.model import Clip


def best_captions(
    clip: Clip,
    images: Sequence[PIL.Image.Image],
    captions: Sequence[str],
    features: Float[Tensor, "captions d"],
    count: int,
) -> list[list[str]]:
    """Return the `count` captions with the highest similarity to each image, the highest first.

    `features` are those of the captions, from `encode_texts`. Equal similarities are ordered as the captions are.
    """
    similarities = encode_images(clip, images, batch_size=len(images)) @ features.T
    order = torch.sort(similarities, dim=1, descending=True, stable=True).indices[:, :count]
    return [[captions[place] for place in best] for best in order.tolist()]
