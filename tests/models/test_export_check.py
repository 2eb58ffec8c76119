"""The check of an export: what it finds in another way to read pictures."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor

from sds_clip.models.checkpoints.load import load_clip
from sds_clip.models.errors import CheckpointError
from sds_clip.models.export.check import agreement


def on_white(image: Image.Image) -> Image.Image:
    rgba = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")


def unconverted(image: Image.Image) -> Image.Image:
    return image


@pytest.mark.parametrize("read", [on_white, unconverted])
@pytest.mark.parametrize("reads_as_others", ["RGBA", "LA", "P"])
def test_export_that_reads_pictures_of_one_mode_otherwise_is_refused(
    reads_as_others: str, read: Callable[[Image.Image], Image.Image], tiny_folder: Path
) -> None:
    clip = load_clip(str(tiny_folder), precision="float32")

    def their_images(pictures: list[Image.Image]) -> Tensor:
        rgb = [each.convert("RGB") if each.mode != reads_as_others else read(each) for each in pictures]
        return clip.encode_image(torch.stack([clip.preprocess(each) for each in rgb]))

    with pytest.raises(CheckpointError, match="gives other image embeddings"):
        agreement(clip, their_images, lambda texts: clip.encode_text(clip.tokenizer(texts)))
