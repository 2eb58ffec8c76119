"""FLOPs and kept activations of a training step's parts, counted without computing anything.

`python -m bench.flops` prints the table behind docs/reproduce.md's estimates. The networks are on the meta
device; torch counts their matrix products and convolutions, a multiplication and an addition as two
operations. The memory for the backward is what autograd keeps, with attention that recomputes its maps, as
fused kernels do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

import open_clip
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode
from transformers import CLIPTextModel

from bench.report import markdown
from bench.train_parts import CONTEXT_LENGTH, new_unet, student_config, text_config
from models.attention import attend_batch_first
from models.student import trainable_parameters

STUDENTS = ("ViT-B-32", "ViT-B-16", "ViT-L-14")
Work = Callable[[], Any]


@dataclass(frozen=True)
class Cost:
    """One sample through one part: floating-point operations, and bytes kept for the backward."""

    name: str
    parameters: int
    forward: int
    both: int | None = None
    kept_bytes: int | None = None


def main() -> None:
    costs = [unet_cost("sd15"), text_encoder_cost("sd15"), *map(student_cost, STUDENTS)]
    rows = [
        [
            cost.name,
            f"{cost.parameters / 1e6:.1f}",
            f"{cost.forward / 1e9:.1f}",
            "" if cost.both is None else f"{cost.both / 1e9:.1f}",
            "" if cost.kept_bytes is None else f"{cost.kept_bytes / 2**20:.0f}",
        ]
        for cost in costs
    ]
    header = ("one sample", "M parameters", "forward GFLOP", "forward + backward GFLOP", "kept MiB")
    print(markdown(header, rows))


def unet_cost(name: str) -> Cost:
    """The frozen U-Net in bfloat16; its backward goes only to the latents."""
    unet = new_unet(name, "meta", torch.bfloat16)
    side, width = unet.config.sample_size, unet.config.cross_attention_dim
    timesteps = torch.zeros(1, dtype=torch.long, device="meta")
    captions = torch.empty(1, CONTEXT_LENGTH, width, dtype=torch.bfloat16, device="meta")

    def forward(with_graph: bool) -> Tensor:
        shape = (1, unet.config.in_channels, side, side)
        latents = torch.empty(shape, dtype=torch.bfloat16, device="meta", requires_grad=with_graph)
        output: Tensor = unet(latents, timesteps, captions, return_dict=False)[0]
        return output

    return _cost(f"U-Net {name}, latents of {side}x{side}, bfloat16", unet, forward)


def text_encoder_cost(name: str) -> Cost:
    """The teacher's text encoder, which needs no gradient."""
    with torch.device("meta"):
        encoder = CLIPTextModel(text_config(name)).eval()
    tokens = torch.zeros(1, CONTEXT_LENGTH, dtype=torch.long, device="meta")
    return Cost(
        f"text encoder {name}", count_parameters(encoder), operations(lambda: encoder(input_ids=tokens))
    )


def student_cost(architecture: str) -> Cost:
    """Both towers in float32 with trainable LayerNorms."""
    with torch.device("meta"):
        network: Any = attend_batch_first(open_clip.CLIP(**student_config(architecture)))
        pixels = torch.empty(1, 3, *network.visual.image_size)
        tokens = torch.zeros(1, CONTEXT_LENGTH, dtype=torch.long)
    trainable_parameters(network, "layernorm")

    def forward(with_graph: bool) -> Tensor:
        features: Tensor = network.encode_image(pixels) + network.encode_text(tokens)
        return features

    return _cost(f"{architecture}, an image and a caption, float32", network, forward)


def operations(work: Work) -> int:
    """Floating-point operations of work without a graph."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        work()
    return int(counter.get_total_flops())


def operations_with_backward(forward: Callable[[bool], Tensor]) -> int:
    """Floating-point operations of a forward and its backward."""
    with FlopCounterMode(display=False) as counter:
        output = forward(True)
        torch.autograd.backward(output, torch.empty_like(output))
    return int(counter.get_total_flops())


def kept_bytes(module: nn.Module, forward: Callable[[bool], Tensor]) -> int:
    """Bytes a forward keeps for its backward, without the parameters; shared storage counts once."""
    kept: dict[int, Tensor] = {}

    def keep(value: Tensor) -> Tensor:
        kept[value.untyped_storage()._cdata] = value  # held, so that no other storage gets its address
        return value

    with saved_tensors_hooks(keep, lambda value: value), _fused_attention(keep):
        output = forward(True)
    own = {parameter.untyped_storage()._cdata for parameter in module.parameters()}
    del output
    return sum(value.untyped_storage().nbytes() for place, value in kept.items() if place not in own)


@contextmanager
def _fused_attention(keep: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Attention that keeps only its inputs and its output."""
    plain = F.scaled_dot_product_attention

    def fused(query: Tensor, key: Tensor, value: Tensor, **options: Any) -> Tensor:
        output: Tensor = checkpoint(plain, query, key, value, use_reentrant=False, **options)
        for tensor in (query, key, value, output):
            keep(tensor)
        return output

    with patch.object(F, "scaled_dot_product_attention", fused):
        yield


def count_parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _cost(name: str, module: nn.Module, forward: Callable[[bool], Tensor]) -> Cost:
    return Cost(
        name,
        count_parameters(module),
        operations(lambda: forward(False)),
        operations_with_backward(forward),
        kept_bytes(module, forward),
    )


if __name__ == "__main__":
    main()
