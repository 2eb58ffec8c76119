"""Communication between the processes of a run. A single process keeps its own values."""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from accelerate import PartialState
from torch import Tensor, nn

from sds_clip.models.clip.precision import choose_device

_PATIENCE = timedelta(hours=2)
"""How long processes wait for each other, since one may read its data or fetch a teacher far more slowly."""


@dataclass(frozen=True)
class Rank:
    """The device of this process, and which part of every batch it takes."""

    device: torch.device
    index: int
    world_size: int

    @property
    def is_main(self) -> bool:
        return self.index == 0


def meet(file: Path, device: str, index: int, world_size: int) -> None:
    """Make this process one of several on one host, which find each other by a new file; `find_rank` then knows it.

    They talk over the loopback, so that no other host reaches them. A GPU is `cuda:N`.
    """
    loopback = {"GLOO_SOCKET_IFNAME": "lo", "NCCL_SOCKET_IFNAME": "lo"}
    # As `torchrun` says it. Accelerate takes the GPU with the index LOCAL_RANK.
    launched = {
        "RANK": str(index),
        "LOCAL_RANK": device.removeprefix("cuda:") if device.startswith("cuda:") else str(index),
        "WORLD_SIZE": str(world_size),
        "LOCAL_WORLD_SIZE": str(world_size),
    }
    os.environ.update(loopback | launched)
    dist.init_process_group(
        "nccl" if device.startswith("cuda") else "gloo",
        init_method=file.absolute().as_uri(),
        rank=index,
        world_size=world_size,
        timeout=_PATIENCE,
    )


def leave() -> None:
    """Leave the others: from now on this process is alone."""
    dist.destroy_process_group()


def find_rank(device: str) -> Rank:
    """Return the rank of a single process, or of one that `torchrun` or `accelerate launch` started.

    Such a launcher also chooses the device.
    """
    # Without a GPU, Accelerate joins processes only if it is told to use the CPU.
    cpu = device == "cpu" or (device == "auto" and not torch.cuda.is_available())
    state = PartialState(cpu=cpu, timeout=_PATIENCE)
    chosen = state.device if state.num_processes > 1 else choose_device(device)
    return Rank(chosen, state.process_index, state.num_processes)


def average_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Replace each gradient by its mean over the processes, in one message (decision 9)."""
    if _alone():
        return
    gradients = [gradient_of(parameter) for parameter in parameters]
    flat = average(torch.cat([gradient.flatten() for gradient in gradients]))
    parts = torch.split(flat, [gradient.numel() for gradient in gradients])
    for gradient, mean in zip(gradients, parts, strict=True):
        gradient.copy_(mean.view_as(gradient))


def average(values: Tensor) -> Tensor:
    """Return the mean over the processes. If one value is not finite, no process gets a finite mean."""
    if _alone():
        return values
    total = values.clone()
    dist.all_reduce(total)
    return total / dist.get_world_size()


def start_alike(parameters: Iterable[nn.Parameter]) -> None:
    """Copy the main process's values to all: a fit on another machine may differ in its last digits."""
    if _alone():
        return
    for parameter in parameters:
        dist.broadcast(parameter.data, src=0)


def anywhere(flag: bool, device: torch.device) -> bool:
    """Return whether a flag is set in any process, so that all act alike."""
    return bool(average(torch.tensor(float(flag), device=device)) > 0)


def exchanged(value: Any) -> list[Any]:
    """Return the values of all processes, in the order of their ranks."""
    if _alone():
        return [value]
    values = [None] * dist.get_world_size()
    dist.all_gather_object(values, value)
    return values


def gradient_of(parameter: nn.Parameter) -> Tensor:
    """Return a parameter's gradient, which is set to zero if no loss has reached it.

    So every process has the same set of gradients.
    """
    if parameter.grad is None:
        parameter.grad = torch.zeros_like(parameter)
    return parameter.grad


def _alone() -> bool:
    return not dist.is_initialized() or dist.get_world_size() == 1
