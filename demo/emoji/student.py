"""The student of the world of pictures: a small ConvNeXt and a small text transformer, as open_clip builds them."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from open_clip.model import CLIP
from torch import Tensor, nn
from torchvision.transforms.functional import normalize

from sds_clip.demo.emoji.pictures import SIDE_PX
from sds_clip.demo.student import preprocess_config as of_shapes

CONTEXT_LENGTH = 24
ENTRIES = 2500
MEAN = (0.75, 0.75, 0.75)
STD = (0.3, 0.3, 0.3)
_WHOLE, _MIDDLE = 7, 3


def model_config(vocab_size: int) -> dict[str, Any]:
    """The architecture as in `open_clip_config.json`, about 4.6 million parameters."""
    return {
        "embed_dim": 192,
        "quick_gelu": False,
        "vision_cfg": {
            "image_size": SIDE_PX,
            "timm_model_name": "convnext_atto",
            "timm_model_pretrained": False,
            "timm_pool": "",
            "timm_proj": "linear",
            "timm_drop": 0.0,
        },
        "text_cfg": {
            "context_length": CONTEXT_LENGTH,
            "vocab_size": vocab_size,
            "hf_tokenizer_name": "emoji-tokenizer",
            "width": 128,
            "heads": 4,
            "layers": 4,
        },
    }


def preprocess_config() -> dict[str, Any]:
    """How an image becomes the model's input: as in the demo world, with this world's mean and deviation."""
    return {**of_shapes(), "mean": list(MEAN), "std": list(STD), "fill_color": 255}


def narrowed(student: CLIP) -> CLIP:
    """Put depthwise kernels of 3 x 3 in the place of ConvNeXt's 7 x 7, which takes a third off a training step.

    Its maps here are 16 to 2 cells wide: most of a 7 x 7 kernel would look at padding.
    """
    for block in _depthwise(student, _WHOLE):
        weight = torch.empty(block.out_channels, 1, _MIDDLE, _MIDDLE)
        _set_kernel(block, nn.init.trunc_normal_(weight, std=0.02))
    return student


def widened(student: CLIP) -> CLIP:
    """Put zeros around the kernels, so that the weights are those of timm's ConvNeXt."""
    for block in _depthwise(student, _MIDDLE):
        _set_kernel(block, F.pad(block.weight.detach(), [(_WHOLE - _MIDDLE) // 2] * 4))
    return student


def _depthwise(student: CLIP, side: int) -> list[nn.Conv2d]:
    return [
        each
        for each in student.visual.modules()
        if isinstance(each, nn.Conv2d) and each.groups > 1 and each.kernel_size == (side, side)
    ]


def _set_kernel(block: nn.Conv2d, weight: Tensor) -> None:
    side = weight.shape[-1]
    block.weight = nn.Parameter(weight)
    block.kernel_size, block.padding = (side, side), (side // 2, side // 2)


def scaled(images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 h w"]:
    """Scale images with values from 0 to 1 as the folder's transform would."""
    found: Tensor = normalize(images, list(MEAN), list(STD))
    return found
