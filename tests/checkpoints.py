"""Builders of small checkpoints on disk, all weights drawn from a seed."""

from __future__ import annotations

import json
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from open_clip.model import CLIP, CustomTextCLIP
from safetensors.torch import save_file
from torch import Tensor, nn

PREPROCESS: dict[str, Any] = {
    "mean": [0.48, 0.46, 0.41],
    "std": [0.27, 0.26, 0.28],
    "interpolation": "bicubic",
    "resize_mode": "shortest",
}
TINY: dict[str, Any] = {
    "embed_dim": 32,
    "quick_gelu": False,
    "vision_cfg": {"image_size": 32, "patch_size": 8, "width": 64, "layers": 2, "head_width": 32},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2},
}
"""A CLIP of two layers a tower with CLIP's own tokenizer."""
SIGLIP: dict[str, Any] = {
    "embed_dim": 64,
    "init_logit_bias": -10,
    "custom_text": True,
    "vision_cfg": {
        "image_size": 160,
        "timm_model_name": "test_vit",
        "timm_model_pretrained": False,
        "timm_pool": "map",
        "timm_proj": "none",
    },
    "text_cfg": {
        "context_length": 12,
        "vocab_size": 40,
        "hf_tokenizer_name": "words",
        "tokenizer_kwargs": {"clean": "canonicalize"},
        "width": 64,
        "heads": 2,
        "layers": 2,
        "no_causal_mask": True,
        "proj_bias": True,
        "pool_type": "last",
        "norm_kwargs": {"eps": 1e-6},
    },
}
"""The SigLIP recipe in small: timm's tower, sigmoids, padding that is read, and a tokenizer of its own."""
WORDS = (
    *("a", "an", "the", "of", "photo", "red", "blue", "green", "cube", "ball", "dog", "cat"),
    *("on", "under", "left", "right", "to", "and", "two", "one"),
)


def save_checkpoint(
    folder: Path,
    weights: dict[str, Tensor],
    model_config: dict[str, Any],
    preprocess: dict[str, Any] | None = None,
) -> Path:
    """Write a folder in open_clip's layout."""
    folder.mkdir(parents=True, exist_ok=True)
    content = {"model_cfg": model_config, "preprocess_cfg": PREPROCESS if preprocess is None else preprocess}
    (folder / "open_clip_config.json").write_text(json.dumps(content))
    stored = {name: value.detach().clone().contiguous() for name, value in weights.items()}
    save_file(stored, folder / "open_clip_model.safetensors")
    return folder


def tiny_network(seed: int = 0) -> CLIP:
    """A CLIP as `TINY` describes it, with LayerNorms that are not the identity."""
    torch.manual_seed(seed)
    network = CLIP(**deepcopy(TINY))
    for module in network.modules():
        if isinstance(module, nn.LayerNorm):
            nn.init.normal_(module.weight, mean=1, std=0.1)
            nn.init.normal_(module.bias, std=0.1)
    return network


def save_tiny_clip(folder: Path, *, seed: int = 0, quick_gelu: bool = False) -> Path:
    """Save a CLIP as `TINY` describes it."""
    return save_checkpoint(folder, tiny_network(seed).state_dict(), {**TINY, "quick_gelu": quick_gelu})


def save_resnet(folder: Path, *, seed: int = 0) -> Path:
    """Save a CLIP whose image tower is CLIP's ResNet, one block a stage."""
    vision = {"image_size": 64, "layers": [1, 1, 1, 1], "width": 16, "patch_size": None}
    config: dict[str, Any] = {**TINY, "vision_cfg": vision}
    torch.manual_seed(seed)
    network = CLIP(**deepcopy(config))
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.weight, mean=1, std=0.1)
            nn.init.normal_(module.bias, std=0.1)
            module.running_mean.normal_(std=0.1)  # type: ignore[union-attr]
            module.running_var.uniform_(0.5, 1.5)  # type: ignore[union-attr]
    return save_checkpoint(folder, network.state_dict(), config)


def save_siglip(folder: Path, *, seed: int = 0) -> Path:
    """Save a model as `SIGLIP` describes it, with its tokenizer."""
    torch.manual_seed(seed)
    config = deepcopy(SIGLIP)
    config.pop("custom_text")
    network = CustomTextCLIP(**config)
    preprocess = {"mean": [0.5] * 3, "std": [0.5] * 3, "interpolation": "bicubic", "resize_mode": "squash"}
    save_checkpoint(folder, network.state_dict(), SIGLIP, preprocess)
    save_word_tokenizer(folder)
    return folder


def save_word_tokenizer(folder: Path) -> None:
    """Save a fast tokenizer of whole words that ends a text with </s> and pads it with <pad>."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    vocabulary = {word: index for index, word in enumerate(["<pad>", "</s>", "<unk>", *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", vocabulary["</s>"])]
    )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    )
    fast.save_pretrained(folder)
