"""All randomness of a run, as pure functions of (seed, step, sample): resuming needs no saved state.

Draws are made on the CPU, so that they are the same on every device and for any number of processes.
"""

from collections.abc import Sequence

import numpy as np
import torch

from sds_clip.models.shapes import Maps, Timesteps

_NOISE, _TIMESTEPS = 1, 2  # keep the two kinds of draws apart


def draw_noise(seed: int, step: int, samples: Sequence[int], shape: tuple[int, int, int]) -> Maps:
    noise = [
        np.random.default_rng((seed, _NOISE, step, sample)).standard_normal(shape, dtype=np.float32)
        for sample in samples
    ]
    return torch.from_numpy(np.stack(noise))


def draw_timesteps(seed: int, step: int, samples: Sequence[int], low: int, high: int) -> Timesteps:
    """Draw a timestep for each sample, uniform on [low, high], both included."""
    return torch.tensor(
        [
            int(np.random.default_rng((seed, _TIMESTEPS, step, sample)).integers(low, high, endpoint=True))
            for sample in samples
        ]
    )
