"""Features of a benchmark's images and texts, in batches, with no more than one batch decoded at a time."""

import hashlib
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from models.clip import Clip
from models.evaluation.errors import EvaluationError
from models.images import ImageError, ImageLimits, decode_image
from models.machine import usable_cores

Progress = Callable[[int, int], None]
"""Called with (done, total) after every batch."""


def encode_images(
    clip: Clip,
    sources: Sequence[Path | Image.Image],
    *,
    batch_size: int = 32,
    limits: ImageLimits = ImageLimits(),
    progress: Progress | None = None,
) -> Float[Tensor, "n d"]:
    """L2-normalised float32 features on the CPU, one row a source, in the sources' order.

    A file is decoded once however often it is named, as evaluation does it (no EXIF, `convert("RGB")`).
    Images with equal pixels get equal features to the last bit, so that their ties stay ties.

    Raises:
        EvaluationError: a file is missing or is not an image that can be decoded.
    """
    unique: dict[Hashable, Path | Image.Image] = {_key(source): source for source in sources}
    waiting = list(unique.values())
    first: dict[bytes, int] = {}
    canonical: list[int] = []
    chunks: list[Tensor] = []
    with ThreadPoolExecutor(max_workers=min(batch_size, usable_cores())) as pool:
        for start in range(0, len(waiting), batch_size):
            batch = waiting[start : start + batch_size]
            pixels = torch.stack(
                list(pool.map(lambda source: clip.preprocess(open_image(source, limits)), batch))
            )
            for image in pixels:
                digest = hashlib.sha256(image.contiguous().numpy()).digest()
                canonical.append(first.setdefault(digest, len(canonical)))
            chunks.append(clip.encode_image(pixels).float().cpu())
            if progress is not None:
                progress(len(canonical), len(waiting))
    if not chunks:
        return torch.empty(0, clip.embed_dim)
    row_of = dict(zip(unique, canonical, strict=True))
    return torch.cat(chunks)[torch.tensor([row_of[_key(source)] for source in sources])]


def encode_texts(
    clip: Clip, texts: Sequence[str], *, batch_size: int = 256, progress: Progress | None = None
) -> Float[Tensor, "n d"]:
    """L2-normalised float32 features on the CPU, one row a text, in the texts' order.

    Texts with equal tokens (repeated, or equal up to the context length) are encoded once.
    """
    if not texts:
        return torch.empty(0, clip.embed_dim)
    tokens, row_of = torch.unique(clip.tokenizer(list(texts)), dim=0, return_inverse=True)
    chunks: list[Tensor] = []
    for start in range(0, len(tokens), batch_size):
        chunks.append(clip.encode_text(tokens[start : start + batch_size]).float().cpu())
        if progress is not None:
            progress(min(start + batch_size, len(tokens)), len(tokens))
    return torch.cat(chunks)[row_of]


def _key(source: Path | Image.Image) -> Hashable:
    return source if isinstance(source, Path) else id(source)


def open_image(source: Path | Image.Image, limits: ImageLimits = ImageLimits()) -> Image.Image:
    """The RGB pixels that evaluation sees, with no regard to EXIF.

    Raises:
        EvaluationError: a file is missing or is not an image that can be decoded.
    """
    if isinstance(source, Image.Image):
        return source.convert("RGB")
    try:
        return decode_image(source.read_bytes(), limits, orient=False)
    except OSError as error:
        raise EvaluationError(f"{source}: cannot be read ({error.strerror}); check the path.") from error
    except ImageError as error:
        raise EvaluationError(f"{source}: {error} Replace the file.") from error
