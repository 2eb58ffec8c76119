"""Networks that differ from a checkpoint as after fine-tuning, and their deltas."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from torch import nn

from sds_clip.models.checkpoints.delta import save_delta
from sds_clip.models.choices import LoraTargets
from sds_clip.models.clip.lora import attach, factors
from sds_clip.models.clip.model import Clip
from sds_clip.models.clip.precision import is_norm


def tuned_copy(
    base: Clip, *, seed: int = 0, trained: Callable[[nn.Module], bool] = is_norm, scale: float = 0.05
) -> nn.Module:
    """A copy of the base's network whose trained modules, the normalisation layers, moved a little."""
    random = torch.Generator().manual_seed(seed)
    network = deepcopy(base.network)
    for module in network.modules():
        if trained(module):
            for value in module.parameters(recurse=False):
                value.data += scale * torch.randn(value.shape, generator=random)
    return network


def attached(
    base: Clip, targets: LoraTargets = "attention", *, rank: int = 4, scale: float = 1.0, seed: int = 0
) -> tuple[nn.Module, dict[str, nn.Parameter]]:
    """A copy of the base's network with factors as after training, and the factors."""
    network = deepcopy(base.network)
    parameters = attach(network, targets=targets, rank=rank, scale=scale, seed=seed)
    random = torch.Generator().manual_seed(seed)
    for value in parameters.values():
        value.data += 0.1 * torch.randn(value.shape, generator=random)
    return network, parameters


def save_lora(folder: Path, base: Clip, targets: LoraTargets = "attention", **options: Any) -> Path:
    """Save the delta of such a copy."""
    network, _ = attached(base, targets, **options)
    return save_delta(folder, base, network, configuration={}, data={}, metrics={}, factors=factors(network))


def save_tuned(folder: Path, base: Clip, *, seed: int = 0) -> Path:
    """Save the delta of such a copy."""
    return save_delta(
        folder,
        base,
        tuned_copy(base, seed=seed),
        configuration={"objective": "sds-clip", "lambda": 0.5},
        data={"hash": "0" * 64},
        metrics={"group": 0.25},
    )
