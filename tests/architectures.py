"""open_clip's architectures without their weights: every configuration that it ships, on torch's meta device."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import open_clip
import torch
from open_clip.coca_model import CoCa
from open_clip.model import CLIP, CustomTextCLIP
from torch import nn
from transformers import M2M100Config, MT5Config, RobertaConfig, XLMRobertaConfig

_SMALL_MT5 = {"d_model": 32, "d_kv": 16, "d_ff": 64, "num_layers": 2, "num_heads": 2, "vocab_size": 64}
_SMALL_BERT = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
_SMALL_M2M = {"d_model": 32, "encoder_layers": 2, "decoder_layers": 1, "vocab_size": 64}
_TEXT_MODELS = {
    "mt5": MT5Config(**_SMALL_MT5),
    "nllb": M2M100Config(**_SMALL_M2M),
    "xlm": XLMRobertaConfig(**_SMALL_BERT),
    "roberta": RobertaConfig(**_SMALL_BERT),
}
"""The text models of open_clip's configurations, in small: their own configurations are on a hub."""


def build(name: str, folder: Path, *, device: str = "meta") -> Any:
    """The network of an architecture, with random weights where the device holds any.

    Transformers' text models are small, and their configurations are written to `folder`; open_clip's own towers
    have one layer a stage.
    """
    config = open_clip.get_model_config(name)
    text, vision = config["text_cfg"], config["vision_cfg"]
    custom = config.pop("custom_text", False) or "hf_model_name" in text
    for part in (text, vision, config.get("multimodal_cfg", {})):
        if "layers" in part:
            part["layers"] = [1] * 4 if isinstance(part["layers"], list) else 1
    if "timm_model_name" in vision:
        vision["timm_model_pretrained"] = False
    if "hf_model_name" in text:
        text |= {
            "hf_model_name": str(_text_model(text["hf_model_name"], folder)),
            "hf_model_pretrained": False,
        }
    kind: Any = (CoCa if "multimodal_cfg" in config else CustomTextCLIP) if custom else CLIP
    with torch.device(device):
        return kind(**config)


def every_network(folder: Path) -> Iterator[tuple[str, nn.Module]]:
    """Every architecture that open_clip lists, by name; of those whose names differ in sizes alone, the first."""
    first_of_family: dict[str, str] = {}
    for name in open_clip.list_models():
        first_of_family.setdefault(re.sub(r"[\d-]+", "", name), name)
    for name in first_of_family.values():
        yield name, build(name, folder)


def _text_model(hub_id: str, folder: Path) -> Path:
    kind = next(kind for kind in _TEXT_MODELS if kind in hub_id)
    place = folder / kind
    place.mkdir(exist_ok=True)
    (place / "config.json").write_text(json.dumps(_TEXT_MODELS[kind].to_diff_dict()))
    return place
