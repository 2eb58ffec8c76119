"""A checkpoint's version: a hash over its weights and everything else that changes a result."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any, NamedTuple

import torch
from open_clip.model import CLIPTextCfg, CLIPVisionCfg
from torch import Tensor, nn

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
LORA_SCALE = "lora.scale"
"""The tensor that every checkpoint with factors has (`sds_clip.models.clip.lora`)."""
_WITHOUT_EFFECT = frozenset(
    {  # names of locations, settings that matter in training only, and values that the weights replace
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


class Stored(NamedTuple):
    """What the version keeps of one tensor as it is stored in a file."""

    dtype: torch.dtype
    sha256: str
    """Over its shape and its bytes."""


@dataclass(frozen=True)
class Identity:
    """What makes two checkpoints the same, tensor by tensor, so that only changed tensors need hashing."""

    tensors: Mapping[str, Stored]
    description: Mapping[str, Any]
    """Everything but the weights that changes a result."""

    @cached_property
    def version(self) -> str:
        """sha256 over every tensor's name, format and hash, and the description, as canonical JSON.

        The order of the tensors and the file that they were stored in do not matter.
        """
        tensors = {name: [str(value.dtype), value.sha256] for name, value in self.tensors.items()}
        described = {**self.description, "tensors": tensors}
        text = json.dumps(described, sort_keys=True, separators=(",", ":"), allow_nan=False)
        return hashlib.sha256(text.encode()).hexdigest()

    def replacing(self, tensors: Mapping[str, Tensor]) -> "Identity":
        """Return the identity of the same checkpoint with other values for some of its tensors."""
        changed = {name: stored(value) for name, value in tensors.items()}
        if LORA_SCALE in self.tensors:
            # Factors, and weights that are laid over them, give another checkpoint in another order.
            changed["over"] = Stored(torch.float32, self.version)
        return Identity({**self.tensors, **changed}, self.description)


def stored(value: Tensor) -> Stored:
    """Return the format of a tensor and the hash over its shape and its bytes."""
    digest = hashlib.sha256(f"{list(value.shape)}".encode())
    digest.update(value.detach().contiguous().cpu().reshape(-1).view(torch.uint8).numpy().data)
    return Stored(value.dtype, digest.hexdigest())


def as_stored(network: nn.Module, dtypes: Mapping[str, torch.dtype]) -> Iterator[tuple[str, Tensor]]:
    """Yield a float32 network's tensors in the formats of their file.

    Converting float16 to float32 adds nothing, so converting back loses nothing. A tensor that has another
    name in the file, or is not stored as a float, stays as it is.
    """
    for name, value in network.state_dict().items():
        dtype = dtypes.get(name, value.dtype)
        yield name, value.detach().to(dtype if dtype.is_floating_point else value.dtype)


def effective_model_config(model_config: Mapping[str, Any]) -> dict[str, Any]:
    """Return what changes a result in a `model_cfg`: no explicit defaults, names or training settings."""
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
