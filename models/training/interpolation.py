"""Weights between a run's base and what it trained (WiSE-FT, arXiv 2109.01903)."""

from copy import deepcopy

import torch
from torch import nn

from sds_clip.models.clip.lora import LoRA

ALPHAS = (1.0, 0.75, 0.5, 0.25)
"""What `alpha: auto` chooses among. Of equal ones, it takes the first."""


@torch.no_grad()
def interpolated(network: nn.Module, base: nn.Module, alpha: float) -> nn.Module:
    """Return a network with the weights (1 - alpha) theta_base + alpha theta_trained.

    The base has no factors of LoRA. They stay, and their scale is multiplied by alpha.
    """
    if alpha == 1:
        return network
    found, before = deepcopy(network), base.state_dict()
    for name, value in found.state_dict().items():
        if name in before and not torch.equal(value, before[name]):
            value.copy_((1 - alpha) * before[name] + alpha * value)
    for module in found.modules():
        if isinstance(module, LoRA):
            module.scale *= alpha
    return found
