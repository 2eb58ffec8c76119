"""A checkpoint's version: a hash over its weights and over all else that changes a result."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from open_clip.model import CLIPTextCfg, CLIPVisionCfg
from torch import Tensor

TOKENIZER_FILES = (
    "added_tokens.json",
    "merges.txt",
    "sentencepiece.bpe.model",
    "special_tokens_map.json",
    "spiece.model",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "vocab.json",
    "vocab.txt",
)
_WITHOUT_EFFECT = frozenset(
    {  # names of places, settings that act in training only, and values that the weights replace
        "hf_tokenizer_name",
        "hf_model_pretrained",
        "timm_model_pretrained",
        "patch_dropout",
        "timm_drop",
        "timm_drop_path",
        "init_logit_scale",
        "init_logit_bias",
    }
)


def version_of(weights: Mapping[str, Tensor], description: Mapping[str, Any]) -> str:
    """sha256 over every tensor's name, format, shape and bytes, and the description as canonical JSON.

    The order and the file that the tensors were stored in do not count.
    """
    digest = hashlib.sha256(canonical_json(description))
    for name in sorted(weights):
        value = weights[name].detach().contiguous().cpu()
        digest.update(f"\n{name}|{value.dtype}|{list(value.shape)}|".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def canonical_json(value: Mapping[str, Any]) -> bytes:
    """JSON with sorted keys and no spaces; tuples are lists."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def effective_model_config(model_config: Mapping[str, Any]) -> dict[str, Any]:
    """What in a `model_cfg` changes a result: no written-out default, no name, no training setting."""
    towers = {"vision_cfg": CLIPVisionCfg, "text_cfg": CLIPTextCfg}
    effective: dict[str, Any] = {}
    for key, value in model_config.items():
        if key in towers:
            defaults = {field.name: field.default for field in fields(towers[key])}
            effective[key] = {
                name: option
                for name, option in value.items()
                if name not in _WITHOUT_EFFECT and option != defaults.get(name)
            }
        elif key not in _WITHOUT_EFFECT and value not in (None, False):
            effective[key] = value
    return effective


def hashes_of(files: Iterable[Path]) -> dict[str, str]:
    """sha256 of each file, by its name alone."""
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}
