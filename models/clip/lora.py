"""LoRA (arXiv 2106.09685): the product of two narrow matrices beside the frozen weight of a linear layer.

    y = x W^t + b + s (x A^t) B^t        s = alpha / rank

A is [p, rank, in] and B is [p, out / p, rank]. Where a layer computes queries, keys and values at once, p is 3, so that
each of them has its own factors, as in PEFT. Elsewhere it is 1. A layer's factors are named `LAYER.lora.A` and
`LAYER.lora.B`. The one tensor `lora.scale` is s.
"""

import math
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from typing import Any, NamedTuple

import timm.layers
import torch
import torch.nn.functional as F
from jaxtyping import Float
from open_clip.transformer import ResidualAttentionBlock
from torch import Tensor, nn

from sds_clip.models.choices import LoraTargets
from sds_clip.models.clip.attention import BatchFirstAttention
from sds_clip.models.clip.student import StudentError
from sds_clip.models.clip.version import LORA_SCALE

_A, _B = ".lora.A", ".lora.B"


class Layer(NamedTuple):
    """A linear layer that factors can be put beside."""

    weight: str
    """The weight's name in the network's state dict."""
    parts: int
    targets: LoraTargets
    """`attention` or `mlp`."""


class LoRA(nn.Module):
    """The factors of a layer, and what they add to its output."""

    def __init__(self, a: Float[Tensor, "p r i"], b: Float[Tensor, "p o r"], scale: float) -> None:
        super().__init__()
        self.A, self.B = nn.Parameter(a), nn.Parameter(b)
        self.scale = scale

    def forward(self, y: Float[Tensor, "*n po"], x: Float[Tensor, "*n i"]) -> Float[Tensor, "*n po"]:
        return torch.add(y, added(x, self.A, self.B), alpha=self.scale)


def added(x: Tensor, a: Float[Tensor, "p r i"], b: Float[Tensor, "p o r"]) -> Tensor:
    """Return (x A^t) B^t for all parts, side by side."""
    return F.linear(F.linear(x, a.flatten(0, 1)), torch.block_diag(*b))  # type: ignore[no-untyped-call]


def attach(
    network: nn.Module, *, targets: LoraTargets, rank: int, scale: float, seed: int
) -> dict[str, nn.Parameter]:
    """Put fresh factors beside a network's layers, in place, and return them by name.

    As in PEFT, A is drawn as torch draws a linear layer, and B is 0, so that the network computes what it did.

    Raises:
        StudentError: a tower has no such layer, or the rank is above the width of one.
    """
    random = torch.Generator().manual_seed(seed)
    found = dict(layers(network))
    chosen = {name: layer for name, layer in found.items() if targets in ("both", layer.targets)}
    for tower, of_image in (("image", True), ("text", False)):
        there = {layer.targets for name, layer in found.items() if name.startswith("visual.") is of_image}
        if not there & ({"attention", "mlp"} if targets == "both" else {targets}):
            remedy = f"Use lora_targets: {min(there)}" if there else "Train all of its parameters"
            raise StudentError(
                f"This CLIP's {tower} tower has no layers for lora_targets: {targets}, so it would not be trained. "
                f"{remedy} instead."
            )
    for name, layer in chosen.items():
        weight = network.get_parameter(layer.weight)
        rows, width = weight.shape[0] // layer.parts, weight.shape[1]
        if rank > min(rows, width):
            raise StudentError(
                f"The layer {name} of this CLIP is {rows} x {width}, so lora_rank can be at most {min(rows, width)}, "
                f"and not {rank}."
            )
        bound = 1 / math.sqrt(width)  # Kaiming's uniform distribution with a = sqrt(5)
        a = torch.empty(layer.parts, rank, width).uniform_(-bound, bound, generator=random)
        module: Any = network.get_submodule(name)
        module.lora = LoRA(a.to(weight.device), weight.new_zeros(layer.parts, rows, rank), scale)
        kind: Any = type(module)
        module.__class__ = adapted(kind)
    return {
        f"{name}.lora.{letter}": network.get_parameter(f"{name}.lora.{letter}")
        for name in chosen
        for letter in "AB"
    }


def factors(network: nn.Module) -> dict[str, Tensor]:
    """Return a network's factors on the CPU, and their scale. Those that still add nothing are left out."""
    found: dict[str, Tensor] = {}
    for name, module in network.named_modules():
        if isinstance(module, LoRA) and module.B.any():
            found |= {f"{name}.{letter}": getattr(module, letter).detach().cpu() for letter in "AB"}
            found[LORA_SCALE] = torch.tensor(module.scale)
    return found


def is_factor(name: str) -> bool:
    return name == LORA_SCALE or name.endswith((_A, _B))


def factor_names(names: Iterable[str]) -> set[str]:
    """Return the names of the factors of layers, and of their scale."""
    return {f"{name}{letter}" for name in names for letter in (_A, _B)} | {LORA_SCALE}


def shapes(network: nn.Module, tensors: Mapping[str, Tensor]) -> dict[str, torch.Size]:
    """Return the shapes that those of the tensors that are factors must have beside a network's layers."""
    if LORA_SCALE not in tensors:
        return {}
    found = {LORA_SCALE: torch.Size()}
    for name, layer in layers(network):
        a = tensors.get(f"{name}{_A}")
        if a is not None and a.dim() == 3 and f"{name}{_B}" in tensors:
            rows, width = network.get_parameter(layer.weight).shape
            found[f"{name}{_A}"] = torch.Size((layer.parts, a.shape[1], width))
            found[f"{name}{_B}"] = torch.Size((layer.parts, rows // layer.parts, a.shape[1]))
    return found


def merged(network: nn.Module, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return tensors with the weights W + s B A in place of factors. Computed in float64 and rounded once.

    A weight that is among the tensors is not the base's any more, and stays as it is.
    """
    found = {name: value for name, value in tensors.items() if not is_factor(name)}
    for name, layer in layers(network):
        if f"{name}{_A}" in tensors and layer.weight not in found:
            a, b = (tensors[f"{name}{letter}"].double().cpu() for letter in (_A, _B))
            weight: Any = network.get_parameter(layer.weight)
            # A server may hold a weight as its pack alone (`sds_clip.models.clip.packed`).
            whole = getattr(weight, "packed", weight).detach().to_dense().double().cpu()
            found[layer.weight] = (whole + tensors[LORA_SCALE].double().cpu() * (b @ a).flatten(0, 1)).float()
    return found


def layers(network: nn.Module) -> Iterator[tuple[str, Layer]]:
    """Return the linear layers of both towers' blocks by name.

    Only layers are among them that a network calls with all of their input. Others would be trained, and not used.
    """
    text: Any = getattr(network, "text", None)
    # With a mask for each text, attention does not call its layers, as in CoCa.
    masked = getattr(text, "cls_emb", None) is not None or getattr(text, "use_pad_mask", False)
    for prefix, module in network.named_modules():
        if prefix.startswith("text_decoder.") or (masked and prefix.startswith("text.")):
            continue
        if isinstance(module, ResidualAttentionBlock):
            if isinstance(module.attn, BatchFirstAttention):
                yield f"{prefix}.attn", Layer(f"{prefix}.attn.in_proj_weight", 3, "attention")
                yield f"{prefix}.attn.out_proj", Layer(f"{prefix}.attn.out_proj.weight", 1, "attention")
            for name in ("c_fc", "c_proj") if isinstance(module.mlp, nn.Sequential) else ():
                yield f"{prefix}.mlp.{name}", Layer(f"{prefix}.mlp.{name}.weight", 1, "mlp")
        elif type(module) is timm.layers.Attention:
            yield f"{prefix}.qkv", Layer(f"{prefix}.qkv.weight", 3, "attention")
            yield f"{prefix}.proj", Layer(f"{prefix}.proj.weight", 1, "attention")
        elif isinstance(module, timm.layers.Mlp) and isinstance(module.fc1, nn.Linear):
            for name in ("fc1", "fc2"):
                yield f"{prefix}.{name}", Layer(f"{prefix}.{name}.weight", 1, "mlp")


class _Linear(nn.Module):
    lora: LoRA

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.lora(super().forward(x), x)
        return output


class _Attention(BatchFirstAttention):
    lora: LoRA

    def project_in(self, x: Tensor) -> Tensor:
        output: Tensor = self.lora(super().project_in(x), x)
        return output


@cache
def adapted(kind: Any, linear: type[nn.Module] = _Linear) -> Any:
    """Return a layer's class with what its module `lora` adds to its product, by `linear` if it is no attention."""
    mixin = _Attention if issubclass(kind, BatchFirstAttention) else linear
    return type(kind.__name__, (mixin, kind), {})
