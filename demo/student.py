"""The demo student: a small CLIP built from open_clip's own classes, and its folder on disk."""

from __future__ import annotations

import json
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, UInt8
from open_clip.model import CLIP
from safetensors.torch import save_file
from torch import Tensor, nn

from sds_clip.demo.tokenizer import CONTEXT_LENGTH
from sds_clip.demo.world import IMAGE_SIZE_PX

MEAN = (0.85, 0.85, 0.85)
STD = (0.25, 0.25, 0.25)


def model_config(vocab_size: int) -> dict[str, Any]:
    """The architecture as in `open_clip_config.json`, about 3.3 million parameters."""
    return {
        "embed_dim": 192,
        "quick_gelu": False,
        "vision_cfg": {
            "image_size": IMAGE_SIZE_PX,
            "patch_size": 16,
            "width": 192,
            "layers": 5,
            "head_width": 48,
        },
        "text_cfg": {
            "context_length": CONTEXT_LENGTH,
            "vocab_size": vocab_size,
            "hf_tokenizer_name": "demo-tokenizer",
            "width": 128,
            "heads": 4,
            "layers": 4,
        },
    }


def preprocess_config() -> dict[str, Any]:
    """How an image becomes the model's input: the whole image, squeezed to a square of 64 pixels."""
    return {
        "size": IMAGE_SIZE_PX,
        "mode": "RGB",
        "mean": list(MEAN),
        "std": list(STD),
        "interpolation": "bicubic",
        "resize_mode": "squash",
        "fill_color": 0,
    }


def new_student(vocab_size: int, config: dict[str, Any] | None = None) -> CLIP:
    """A student with fresh weights from torch's global random state, by default of this world's architecture.

    Word and position embeddings start at the same scale. open_clip's 0.02 and 0.01 suit long training of wide
    towers. Here words would outweigh positions from the start, and the text tower would begin as a bag of
    words by construction. It is meant to become one only because its training gives it no reason to do better.
    """
    student = CLIP(**deepcopy(config or model_config(vocab_size)))
    context_length, width = student.positional_embedding.shape
    nn.init.normal_(student.token_embedding.weight, std=width**-0.5)
    with torch.no_grad():
        student.positional_embedding.copy_((2 / width) ** 0.5 * sines_and_cosines(context_length, width))
    return student


def sines_and_cosines(count: int, width: int, longest: float = 100.0) -> Float[Tensor, "{count} {width}"]:
    """Positions as sines, then cosines, of wave lengths from 2 pi to 2 pi `longest` (arXiv 1706.03762, section 3.5)."""
    angles = torch.arange(count)[:, None] * longest ** (-torch.arange(0, width, 2) / width)
    return torch.cat([angles.sin(), angles.cos()], dim=1)


def save_student(
    student: CLIP, folder: Path, model: dict[str, Any] | None = None, preprocess: dict[str, Any] | None = None
) -> None:
    """Write float16 weights and the configuration; the tokenizer's files exist already."""
    weights = {name: value.detach().half().contiguous() for name, value in student.state_dict().items()}
    save_file(weights, folder / "open_clip_model.safetensors")
    (folder / "open_clip_model.safetensors").chmod(0o644)  # safetensors makes it readable by its owner only
    config = {
        "model_cfg": model or model_config(student.vocab_size),
        "preprocess_cfg": preprocess or preprocess_config(),
    }
    (folder / "open_clip_config.json").write_text(json.dumps(config, indent=2) + "\n")


def pixels_to_input(images: UInt8[Tensor, "b h w 3"]) -> Float[Tensor, "b 3 h w"]:
    """Scale images of the model's own size as the folder's transform would."""
    scaled = images.permute(0, 3, 1, 2).float() / 255
    return (scaled - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)
