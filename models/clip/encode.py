"""Encode images and texts in memory, in batches."""

import hashlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from sds_clip.models.clip.model import Clip
from sds_clip.models.machine import usable_cores


def encode_images(clip: Clip, images: Sequence[Image.Image], *, batch_size: int = 32) -> Float[Tensor, "n d"]:
    """Return L2-normalised float32 features on the CPU, one row per image.

    Images with equal pixels get features that are equal to the last bit, in whichever batches they are, so
    that ties stay ties.
    """
    first: dict[bytes, int] = {}
    row_of: list[int] = []
    chunks: list[Tensor] = []
    with ThreadPoolExecutor(max_workers=min(batch_size, usable_cores())) as pool:
        for start in range(0, len(images), batch_size):
            batch = images[start : start + batch_size]
            pixels = torch.stack(list(pool.map(lambda image: clip.preprocess(image.convert("RGB")), batch)))
            for values in pixels:
                digest = hashlib.sha256(values.contiguous().numpy()).digest()
                row_of.append(first.setdefault(digest, len(row_of)))
            chunks.append(clip.encode_image(pixels).float().cpu())
    return torch.cat(chunks)[torch.tensor(row_of)] if chunks else torch.empty(0, clip.embed_dim)


def encode_texts(
    clip: Clip,
    texts: Sequence[str],
    *,
    batch_size: int = 256,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Float[Tensor, "n d"]:
    """Return L2-normalised float32 features on the CPU, one row per text.

    Texts with equal tokens (repeated, or equal up to the context length) are encoded once. `progress(done,
    total)` is called after every batch.
    """
    if not texts:
        return torch.empty(0, clip.embed_dim)
    tokens, row_of = torch.unique(clip.tokenizer(list(texts)), dim=0, return_inverse=True)
    chunks: list[Tensor] = []
    for start in range(0, len(tokens), batch_size):
        chunks.append(clip.encode_text(tokens[start : start + batch_size]).float().cpu())
        progress(min(start + batch_size, len(tokens)), len(tokens))
    return torch.cat(chunks)[row_of]
