"""The noise arithmetic of diffusion models: z_t = s z_0 + n eps, and what a network predicts of it.

Where variance is preserved, s = sqrt(abar_t) and n = sqrt(1 - abar_t). In a flow, s = 1 - sigma_t and n = sigma_t.
What leads to the noise never divides by s, so levels of pure noise (s = 0) need no special case.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from sds_clip.models.shapes import Maps, PerSample, Timesteps

PredictionType = Literal["epsilon", "sample", "v_prediction", "flow_prediction"]
Coefficient = float | Float[Tensor, "b 1 1 1"]


@dataclass(frozen=True, eq=False)
class Levels:
    """s and n of each timestep or sample, in float32.

    Their squares are kept. Those of a variance-preserving schedule are abar and 1 - abar, whose sum is exactly 1 in
    float32, and the root of a square is exact too.
    """

    signal_power: PerSample
    noise_power: PerSample
    velocity: PredictionType = "v_prediction"
    """What is called the velocity at these levels."""

    @classmethod
    def of_abar(cls, alphas_cumprod: PerSample) -> "Levels":
        return cls(alphas_cumprod, 1 - alphas_cumprod)

    @classmethod
    def of_flow(cls, sigmas: PerSample) -> "Levels":
        return cls((1 - sigmas).square(), sigmas.square(), "flow_prediction")

    def to(self, device: torch.device) -> "Levels":
        return Levels(self.signal_power.to(device), self.noise_power.to(device), self.velocity)

    def __len__(self) -> int:
        return len(self.signal_power)

    def __getitem__(self, timesteps: Timesteps) -> "Levels":
        return Levels(self.signal_power[timesteps], self.noise_power[timesteps], self.velocity)

    @property
    def signal(self) -> Float[Tensor, "b 1 1 1"]:
        return self.signal_power.sqrt()[:, None, None, None]

    @property
    def noise(self) -> Float[Tensor, "b 1 1 1"]:
        return self.noise_power.sqrt()[:, None, None, None]


def add_noise(latents: Maps, noise: Maps, levels: Levels) -> Maps:
    """z_t = s z_0 + n eps (DDPM, arXiv 2006.11239, equation 4; flows, arXiv 2403.03206, equation 13)."""
    return levels.signal * latents + levels.noise * noise


def target(latents: Maps, noise: Maps, levels: Levels, kind: PredictionType) -> Maps:
    """Return what a network of this kind should predict: a z_0 + b eps."""
    a, b, _ = _row(kind, levels)
    return a * latents + b * noise


def convert(
    output: Maps, noisy_latents: Maps, levels: Levels, given: PredictionType, wanted: PredictionType
) -> Maps:
    """Return the prediction of another kind that a network's output for z_t means.

    With D = s b - n a, the equations p = a z_0 + b eps and z_t = s z_0 + n eps give

    eps = (s p - a z_t) / D,    z_0 = (b z_t - n p) / D,
    c z_0 + d eps = ((s d - n c) p + (b c - a d) z_t) / D.
    """
    if given == wanted:
        return output
    (a, b, determinant), (c, d, other) = _row(given, levels), _row(wanted, levels)
    return other / determinant * output + (b * c - a * d) / determinant * noisy_latents


def noise_offset(noisy_latents: Maps, levels: Levels) -> Maps:
    """Return what noise exceeds s times the velocity by: n z_t if variance is preserved, z_t in a flow."""
    a, _, _ = _row(levels.velocity, levels)
    return -a * noisy_latents


def _row(kind: PredictionType, levels: Levels) -> tuple[Coefficient, Coefficient, Coefficient]:
    """a and b of p = a z_0 + b eps, and the determinant s b - n a."""
    match kind:
        case "epsilon":
            return 0.0, 1.0, levels.signal
        case "sample":
            return 1.0, 0.0, -levels.noise
        case "v_prediction":  # arXiv 2202.00512, appendix D
            power = levels.signal_power + levels.noise_power
            return -levels.noise, levels.signal, power[:, None, None, None]
        case "flow_prediction":  # arXiv 2209.03003
            return -1.0, 1.0, levels.signal + levels.noise
