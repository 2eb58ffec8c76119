"""AdamW with warm-up and a cosine schedule."""

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from sds_clip.models.clip.lora import LoRA
from sds_clip.models.clip.precision import is_norm
from sds_clip.models.training.config import FinetuneConfig
from sds_clip.models.training.processes import gradient_of

Parameters = dict[str, nn.Parameter]


_PROJECTIONS = ("proj", "text_projection")
"""Matrices that open_clip's towers hold as direct parameters, not in a layer."""


def make_optimizer(
    network: nn.Module, student: Parameters, mapper: Parameters, config: FinetuneConfig
) -> torch.optim.AdamW:
    """Create AdamW with groups for the student's matrices, which decay, its other parameters, and the mapper.

    `student` holds those parameters of the network that are trained, by name.
    """
    decaying = decaying_parameters(network)
    matrices = [value for name, value in student.items() if name in decaying]
    others = [value for name, value in student.items() if name not in decaying]
    groups = [
        {"params": matrices, "weight_decay": config.weight_decay, "peak": config.lr},
        {"params": others, "weight_decay": 0.0, "peak": config.lr},
        # L_SDS is a mean over all elements of a latent, so at 4x64x64 its gradients are far below a usual
        # eps. With such an eps, the mapper's speed would depend on lambda and on the size of the latents.
        {"params": list(mapper.values()), "weight_decay": 0.0, "peak": config.mapper_lr, "eps": 1e-12},
    ]
    trained = [group for group in groups if group["params"]]
    # The fused kernel goes over each tensor once. On a CPU it is several times as fast as the default.
    return torch.optim.AdamW(trained, betas=(0.9, 0.98), eps=1e-6, fused=True)


def decaying_parameters(network: nn.Module) -> set[str]:
    """Return the names of the parameters that decay: the matrices that features are multiplied by.

    Layers call their matrix a weight. Anything else in a module is a token, a query, a table of positions or
    biases, or a gain, and does not decay, whatever its shape (timm's tokens are 1 x n x d). Embeddings,
    norms, and what a tower names in its `no_weight_decay`, as timm's and open_clip's do, do not decay either
    (decision 25).
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
            is_matrix = own_name.endswith("weight") or own_name in _PROJECTIONS or isinstance(module, LoRA)
            if value.ndim >= 2 and is_matrix:
                matrices.add(name)
    return matrices - exempt


def set_learning_rate(
    optimizer: torch.optim.Optimizer, config: FinetuneConfig, step: int, steps: int
) -> None:
    """Set the learning rate of each group: linear warm-up, then a cosine to zero."""
    share = rate_share(step, steps, config.warmup_steps)
    for group in optimizer.param_groups:
        group["lr"] = group["peak"] * share


def rate_share(step: int, steps: int, warmup_steps: int) -> float:
    """Return the share of the peak learning rate for step `step` of `steps`, counted from 0."""
    warmup = min(warmup_steps, steps - 1)
    if step < warmup:
        return (step + 1) / (warmup + 1)
    return (1 + math.cos(math.pi * (step - warmup) / (steps - warmup))) / 2


def gradient_norm(parameters: Iterable[nn.Parameter]) -> Tensor:
    return nn.utils.get_total_norm([gradient_of(parameter) for parameter in parameters])
