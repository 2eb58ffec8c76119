"""Compare what an exported checkpoint computes with the original, from pictures and texts to embeddings."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from sds_clip.models.clip.golden import SEED, SENTENCES
from sds_clip.models.clip.model import Clip
from sds_clip.models.errors import CheckpointError

AT_LEAST = 0.99999
"""The smallest cosine between an embedding of ours and the export's, in float32."""
TEXTS = (*SENTENCES, "A Photo of two cats, and a dog!", "", "a word " * 200)


@dataclass(frozen=True)
class Agreement:
    """The smallest cosine of each tower's embeddings with those of the original."""

    image: float
    text: float


def agreement(
    clip: Clip,
    encode_images: Callable[[list[Image.Image]], Tensor],
    encode_texts: Callable[[list[str]], Tensor],
) -> Agreement:
    """Encode pictures and texts with both, one alone and then the others together.

    Raises CheckpointError, which names the tower, if a cosine is below `AT_LEAST`.
    """

    def our_images(pictures: list[Image.Image]) -> Tensor:
        return clip.encode_image(
            torch.stack([clip.preprocess(picture.convert("RGB")) for picture in pictures])
        )

    def our_texts(texts: list[str]) -> Tensor:
        return clip.encode_text(clip.tokenizer(texts))

    found = Agreement(
        _smallest_cosine(our_images, encode_images, pictures_for(clip)),
        _smallest_cosine(our_texts, encode_texts, TEXTS),
    )
    for tower, cosine in (("image", found.image), ("text", found.text)):
        if not cosine >= AT_LEAST:
            raise CheckpointError(
                f"{clip.reference} ({clip.architecture}) cannot be exported: what was written gives other {tower} "
                f"embeddings. Their cosine with the original's is only {cosine:.6f}, and must be at least {AT_LEAST}. "
                "Export it in another format."
            )
    return found


def pictures_for(clip: Clip) -> list[Image.Image]:
    """Make pictures of coarse noise from a seed: square, wide and tall ones, which every processor crops alike.

    The second, which is made smaller, is there in other modes too, with noise as its transparency.
    """
    height, width = clip.image_size
    random = np.random.RandomState(SEED)  # frozen: the same numbers in every version
    sizes = [(width, height), (3 * width, 3 * height), (4 * width, 2 * height), (2 * width, 4 * height)]
    coarse = [random.randint(0, 256, (12, 12, 3)).astype(np.uint8) for _ in sizes]
    pictures = [
        Image.fromarray(noise).resize(size, Image.Resampling.BICUBIC)
        for noise, size in zip(coarse, sizes, strict=True)
    ]
    transparent = pictures[1].copy()
    transparent.putalpha(pictures[2].resize(transparent.size).convert("L"))
    palette = transparent.convert("RGB").convert("P")
    palette.info["transparency"] = palette.getpixel((0, 0))
    return [*pictures, *(transparent.convert(mode) for mode in ("RGBA", "LA", "L", "1", "CMYK")), palette]


def _smallest_cosine(
    ours: Callable[[list[Any]], Tensor], theirs: Callable[[list[Any]], Tensor], inputs: Sequence[Any]
) -> float:
    batches = (list(inputs[:1]), list(inputs[1:]))
    cosines = [F.cosine_similarity(ours(batch).double(), theirs(batch).double()) for batch in batches]
    return float(torch.cat(cosines).min())
