"""AdamW with warm-up and a cosine."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from models.precision import is_norm
from models.training.config import FinetuneConfig
from models.training.processes import gradient_of

Parameters = dict[str, nn.Parameter]


_PROJECTIONS = ("proj", "text_projection")
"""Matrices that open_clip's towers hold as parameters of their own."""


def make_optimizer(
    network: nn.Module, student: Parameters, mapper: Parameters, config: FinetuneConfig
) -> torch.optim.AdamW:
    """Three groups: the student's matrices, which decay; the rest of the student; the mapper.

    `student` are those of the network's parameters that are trained, by name.
    """
    decaying = decaying_parameters(network)
    groups = [
        {
            "params": [value for name, value in student.items() if name in decaying],
            "weight_decay": config.weight_decay,
            "peak": config.lr,
        },
        {
            "params": [value for name, value in student.items() if name not in decaying],
            "weight_decay": 0.0,
            "peak": config.lr,
        },
        # L_SDS is a mean over all of a latent's elements, so at 4x64x64 its gradients are far below a common eps, which
        # would make the mapper's pace depend on lambda and the latents' size.
        {"params": list(mapper.values()), "weight_decay": 0.0, "peak": config.mapper_lr, "eps": 1e-12},
    ]
    return torch.optim.AdamW([group for group in groups if group["params"]], betas=(0.9, 0.98), eps=1e-6)


def decaying_parameters(network: nn.Module) -> set[str]:
    """Names of the parameters that weight decay reaches: the matrices that features are multiplied by.

    Layers call their matrix a weight. What else a module holds is a token, a query, a table of positions or biases,
    or a gain, and does not decay, whatever its shape (timm's tokens are 1 x n x d). Nor do embeddings, norms, and
    what a tower names in its `no_weight_decay`, as timm's and open_clip's do.
    """
    matrices: set[str] = set()
    exempt: set[str] = set()
    for prefix, module in network.named_modules():
        if hasattr(module, "no_weight_decay"):
            exempt |= {f"{prefix}.{name}".lstrip(".") for name in module.no_weight_decay()}
        if isinstance(module, nn.Embedding) or is_norm(module):
            continue
        for name, value in module.named_parameters(prefix, recurse=False):
            own_name = name.rpartition(".")[2]
            if value.ndim >= 2 and (own_name.endswith("weight") or own_name in _PROJECTIONS):
                matrices.add(name)
    return matrices - exempt


def set_learning_rate(
    optimizer: torch.optim.Optimizer, config: FinetuneConfig, step: int, steps: int
) -> None:
    """Linear warm-up, then a cosine to zero."""
    share = rate_share(step, steps, config.warmup_steps)
    for group in optimizer.param_groups:
        group["lr"] = group["peak"] * share


def rate_share(step: int, steps: int, warmup_steps: int) -> float:
    """The share of the peak learning rate that step `step` of `steps` takes, counted from 0."""
    warmup = min(warmup_steps, steps - 1)
    if step < warmup:
        return (step + 1) / (warmup + 1)
    return (1 + math.cos(math.pi * (step - warmup) / (steps - warmup))) / 2


def gradient_norm(parameters: Iterable[nn.Parameter]) -> Tensor:
    """The L2 norm over all gradients together."""
    return nn.utils.get_total_norm([gradient_of(parameter) for parameter in parameters])
