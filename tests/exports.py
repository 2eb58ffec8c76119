"""Exported checkpoints as others use them: transformers or onnxruntime alone, from pictures and texts to embeddings."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
import torch.nn.functional as F
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image
from timm.models import register_model
from timm.models.vision_transformer import VisionTransformer
from tokenizers import Tokenizer
from torch import Tensor
from transformers import AutoModel, AutoProcessor

from models.checkpoints import load_clip
from models.choices import ExportFormat
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


def pictures() -> list[Image.Image]:
    """Pictures in the shapes of photos, with their noise on two scales."""
    random = np.random.RandomState(1)
    shapes = [(320, 240), (240, 360), (448, 448), (97, 97), (640, 480)]
    coarse = [random.randint(0, 256, (9, 9, 3)).astype(np.uint8) for _ in shapes]
    return [
        Image.fromarray(noise).resize(shape, Image.Resampling.BILINEAR)
        for noise, shape in zip(coarse, shapes, strict=True)
    ]


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
    pixels = torch.stack([clip.preprocess(picture) for picture in pictures()])
    return clip.encode_image(pixels), clip.encode_text(clip.tokenizer(TEXTS))


@torch.inference_mode()
def by_transformers(folder: Path) -> Embeddings:
    model = AutoModel.from_pretrained(folder).eval()
    processor = AutoProcessor.from_pretrained(folder, backend="pil")
    inputs = processor(
        text=TEXTS, images=pictures(), padding="max_length", truncation=True, return_tensors="pt"
    )
    answer = model(**inputs)
    return answer.image_embeds, answer.text_embeds


def by_onnx(folder: Path, batch_size: int = 3) -> Embeddings:
    import onnxruntime

    config = json.loads((folder / "open_clip_config.json").read_text())
    size = config["model_cfg"]["vision_cfg"]["image_size"]
    transform = image_transform_v2(PreprocessCfg(size=size, **config["preprocess_cfg"]), is_train=False)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    inputs = {
        "pixels": torch.stack([transform(picture) for picture in pictures()]).numpy(),
        "tokens": np.array([encoded.ids for encoded in tokenizer.encode_batch(TEXTS)]),
    }
    embeddings = []
    for tower, name in (("image", "pixels"), ("text", "tokens")):
        session = onnxruntime.InferenceSession(folder / f"{tower}.onnx")
        rows = inputs[name]
        batches = [rows[start : start + batch_size] for start in range(0, len(rows), batch_size)]
        embeddings.append(
            torch.from_numpy(np.concatenate([session.run(None, {name: batch})[0] for batch in batches]))
        )
    return embeddings[0], embeddings[1]


BY: dict[ExportFormat, Callable[[Path], Embeddings]] = {"transformers": by_transformers, "onnx": by_onnx}


def cosines(one: Embeddings, other: Embeddings) -> tuple[float, float]:
    """The smallest cosine of each tower's embeddings."""
    image, text = (
        float(F.cosine_similarity(a.double(), b.double()).min()) for a, b in zip(one, other, strict=True)
    )
    return image, text
