"""Exported checkpoints as others use them: by the lines of the model card, from pictures and texts to embeddings."""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
import torch.nn.functional as F
from PIL import ExifTags, Image
from timm.models import register_model
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from sds_clip.models.checkpoints.load import load_clip
from sds_clip.models.images.decode import decode_image
from tests.checkpoints import PREPROCESS, save_checkpoint, save_word_tokenizer

TEXTS = [
    "a red cube left of a blue ball",
    "Two DOGS, and a cat_on a photo!",
    "",
    "a photo of the green cube " * 40,
]
ARCHITECTURES = ("ViT-B-32", "ViT-B-32-quickgelu", "ViT-L-14", "ViT-B-16-SigLIP")
"""What the parity table has."""
Embeddings = tuple[Tensor, Tensor]
SAVED: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("RGB", "PNG", {}),
    ("RGBA", "PNG", {}),
    ("LA", "PNG", {}),
    ("L", "PNG", {}),
    ("1", "PNG", {}),
    ("P", "PNG", {}),
    ("P", "PNG", {"transparency": 3}),
    ("L", "PNG", {"transparency": 3}),
    ("I;16", "PNG", {}),
    ("RGB", "JPEG", {}),
    ("RGB", "JPEG", {"exif": True}),
    ("L", "JPEG", {}),
    ("CMYK", "JPEG", {}),
    ("RGBA", "WEBP", {}),
    ("P", "GIF", {}),
    ("P", "GIF", {"transparency": 3}),
)
"""Mode, format and options of every kind of file that the service reads."""
_TURNED = 6
"""The EXIF orientation of a picture that is shown turned to the right."""


def pictures() -> list[bytes]:
    """40 files in the shapes of photos, with their noise on two scales, and of all modes."""
    random = np.random.RandomState(1)
    shapes = [(320, 240), (240, 360), (448, 448), (97, 97), (640, 480)]
    files = []
    for number in range(40):
        mode, format, options = SAVED[number % len(SAVED)]
        coarse, alpha = (
            Image.fromarray(random.randint(0, 256, (9, 9, bands)).astype(np.uint8).squeeze())
            .resize(shapes[number % len(shapes)], Image.Resampling.BILINEAR)
            for bands in (3, 1)
        )  # fmt: skip
        if "A" in mode:
            coarse.putalpha(alpha)
        image = coarse.convert(mode)
        if mode == "I;16":
            image = Image.fromarray(np.asarray(alpha).astype(np.uint16) * 256 + random.randint(256))
        if "exif" in options:
            exif = Image.Exif()
            exif[ExifTags.Base.Orientation] = _TURNED
            options = {"exif": exif}
        file = io.BytesIO()
        image.save(file, format, **options)
        files.append(file.getvalue())
    return files


def save_random(architecture: str, folder: Path) -> Path:
    """Save one of open_clip's architectures with random weights. SigLIP gets a small tokenizer of words."""
    torch.manual_seed(0)
    network = open_clip.create_model(architecture, load_weights=False, pretrained_hf=False)
    config = open_clip.get_model_config(architecture)
    preprocess = PREPROCESS
    if "hf_tokenizer_name" in config["text_cfg"]:
        preprocess = {**PREPROCESS, "mean": [0.5] * 3, "std": [0.5] * 3, "resize_mode": "squash"}
    save_checkpoint(folder, network.state_dict(), config, preprocess)
    if "hf_tokenizer_name" in config["text_cfg"]:
        save_word_tokenizer(folder)
    return folder


@register_model
def tiny_siglip_vit(pretrained: bool = False, **options: Any) -> VisionTransformer:
    """SigLIP's image tower in small: no class token, and a pooling by attention."""
    known = {key: options[key] for key in ("num_classes", "global_pool")}
    return VisionTransformer(
        img_size=32, patch_size=8, embed_dim=64, depth=2, num_heads=2, class_token=False, **known
    )


def by_ours(reference: str) -> Embeddings:
    clip = load_clip(reference, device="cpu", precision="float32")
    pixels = torch.stack([clip.preprocess(decode_image(file)) for file in pictures()])
    return clip.encode_image(pixels), clip.encode_text(clip.tokenizer(TEXTS))


def by_card(folder: Path) -> Embeddings:
    """Run the lines of the folder's card."""
    names: dict[str, Any] = {"files": [_in_8_bits(file) for file in pictures()], "texts": TEXTS}
    (lines,) = re.findall("```python\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)
    with contextlib.chdir(folder.parent):
        exec(lines, names)
    return torch.as_tensor(names["image_features"]), torch.as_tensor(names["text_features"])


def _in_8_bits(file: bytes) -> io.BytesIO:
    """A file, with 16-bit grey converted as the card says."""
    image = Image.open(io.BytesIO(file))
    converted = io.BytesIO(file)
    if image.mode == "I;16":
        converted = io.BytesIO()
        Image.fromarray((np.asarray(image) >> 8).astype("uint8")).save(converted, "PNG")
    return converted


def cosines(one: Embeddings, other: Embeddings) -> tuple[float, float]:
    """The smallest cosine of each tower's embeddings."""
    image, text = (
        float(F.cosine_similarity(a.double(), b.double()).min()) for a, b in zip(one, other, strict=True)
    )
    return image, text
