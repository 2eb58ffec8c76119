"""Features of a command's images and texts, computed as the service computes them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sds_clip.errors import CliError

if TYPE_CHECKING:
    from torch import Tensor

    from app.settings import Settings
    from models.clip import Clip
    from models.images import ImageLimits

_BATCH_SIZE = 32


@dataclass(frozen=True)
class ImageProblem:
    """Why an image has no features."""

    code: str
    message: str


def encode_files(
    clip: Clip, paths: Sequence[str], settings: Settings
) -> tuple[Tensor, list[ImageProblem | None]]:
    """Features [i, d] of the files that could be decoded, and for every file its problem or None."""
    import torch

    limits = _limits(settings)
    problems: list[ImageProblem | None] = []
    features: list[Tensor] = [torch.empty(0, clip.embed_dim)]
    for start in range(0, len(paths), _BATCH_SIZE):
        read = [_read(clip, path, limits) for path in paths[start : start + _BATCH_SIZE]]
        problems += [item if isinstance(item, ImageProblem) else None for item in read]
        pixels = [item for item in read if not isinstance(item, ImageProblem)]
        if pixels:
            features.append(clip.encode_image(torch.stack(pixels)).float().cpu())
    return _finite(torch.cat(features)), problems


def encode_texts(
    clip: Clip, texts: Sequence[str], *, progress: Callable[[int, int], None] | None = None
) -> Tensor:
    """Features [t, d] of the texts."""
    from models.encode import encode_texts

    return _finite(encode_texts(clip, texts, progress=progress))


def _finite(features: Tensor) -> Tensor:
    if not bool(features.isfinite().all()):
        raise CliError(
            "the model gives numbers that are not finite: try --precision float32, or other weights"
        )
    return features


def _limits(settings: Settings) -> ImageLimits:
    from models.images import ImageLimits

    try:
        return ImageLimits(max_bytes=settings.max_image_bytes, max_pixels=settings.max_image_pixels)
    except ValueError as error:
        raise CliError(f"SDS_CLIP_MAX_IMAGE_*: {error}") from error


def _read(clip: Clip, path: str, limits: ImageLimits) -> Tensor | ImageProblem:
    from models.images import ImageError, decode_image

    try:
        # One byte over the limit is enough for the decoder to refuse the file.
        with Path(path).open("rb") as file:
            data = file.read(limits.max_bytes + 1)
        return clip.preprocess(decode_image(data, limits))
    except OSError as error:
        return ImageProblem("file_unreadable", f"{error.strerror or 'cannot be read'}.")
    except ImageError as error:
        return ImageProblem(error.code, str(error))
