"""AdamW with warm-up and a cosine."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from models.training.config import FinetuneConfig
from models.training.processes import gradient_of

Parameters = dict[str, nn.Parameter]


def make_optimizer(student: Parameters, mapper: Parameters, config: FinetuneConfig) -> torch.optim.AdamW:
    """Three groups: the student's matrices, which decay; the rest of the student; the mapper."""
    decayed = [value for name, value in student.items() if value.ndim >= 2 and "embedding" not in name]
    kept = [value for name, value in student.items() if value.ndim < 2 or "embedding" in name]
    groups = [
        {"params": decayed, "weight_decay": config.weight_decay, "peak": config.lr},
        {"params": kept, "weight_decay": 0.0, "peak": config.lr},
        # L_SDS is a mean over all of a latent's elements, so at 4x64x64 its gradients are far below a common eps, which
        # would make the mapper's pace depend on lambda and the latents' size.
        {"params": list(mapper.values()), "weight_decay": 0.0, "peak": config.mapper_lr, "eps": 1e-12},
    ]
    return torch.optim.AdamW([group for group in groups if group["params"]], betas=(0.9, 0.98), eps=1e-6)


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
