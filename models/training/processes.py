"""What the processes of a run tell each other; alone, a process keeps what it has."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn


def average_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Replace each gradient by its mean over the processes, in one message."""
    if _alone():
        return
    gradients = [gradient_of(parameter) for parameter in parameters]
    flat = average(torch.cat([gradient.flatten() for gradient in gradients]))
    parts = torch.split(flat, [gradient.numel() for gradient in gradients])
    for gradient, mean in zip(gradients, parts, strict=True):
        gradient.copy_(mean.view_as(gradient))


def average(values: Tensor) -> Tensor:
    """The mean over the processes; one that is not finite anywhere is so everywhere."""
    if _alone():
        return values
    total = values.clone()
    dist.all_reduce(total)
    return total / dist.get_world_size()


def start_alike(parameters: Iterable[nn.Parameter]) -> None:
    """Give every process the main one's values: a fit on another machine may differ in its last digits."""
    if _alone():
        return
    for parameter in parameters:
        dist.broadcast(parameter.data, src=0)


def anywhere(flag: bool, device: torch.device) -> bool:
    """Whether a flag is set in any process, so that all do the same."""
    return bool(average(torch.tensor(float(flag), device=device)) > 0)


def exchanged(value: Any) -> list[Any]:
    """What every process gives, in the order of their ranks."""
    if _alone():
        return [value]
    values = [None] * dist.get_world_size()
    dist.all_gather_object(values, value)
    return values


def gradient_of(parameter: nn.Parameter) -> Tensor:
    """A parameter that no loss has reached has a gradient of zero, in every process."""
    if parameter.grad is None:
        parameter.grad = torch.zeros_like(parameter)
    return parameter.grad


def _alone() -> bool:
    return not dist.is_initialized() or dist.get_world_size() == 1
