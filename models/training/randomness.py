"""All chance of a run, as pure functions of (seed, step, sample): nothing of it has to be saved to resume.

Drawn on the CPU, so that it is the same on every device and however many processes share a batch.
"""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

_NOISE, _TIMESTEPS = 1, 2


def draw_noise(
    seed: int, step: int, samples: Sequence[int], shape: tuple[int, int, int]
) -> Float[Tensor, "b c h w"]:
    """Standard normal noise for each sample."""
    noise = [
        np.random.default_rng((seed, _NOISE, step, sample)).standard_normal(shape, dtype=np.float32)
        for sample in samples
    ]
    return torch.from_numpy(np.stack(noise))


def draw_timesteps(seed: int, step: int, samples: Sequence[int], low: int, high: int) -> Int[Tensor, "b"]:
    """A timestep for each sample, uniform on [low, high]."""
    return torch.tensor(
        [
            int(np.random.default_rng((seed, _TIMESTEPS, step, sample)).integers(low, high, endpoint=True))
            for sample in samples
        ]
    )


def sub_batch(batch_size: int, count: int) -> list[int]:
    """`count` places spread evenly over a batch. The batch's order is random, so its sub-batch is too.

    Spread evenly, every process of an even split gets an equal part.
    """
    return [place * batch_size // count for place in range(count)]
