"""The diffusion model's noise arithmetic. Here `alphas_cumprod` (abar) has one entry per sample, in float32.

No formula divides by abar or 1 - abar, so a schedule that ends in pure noise (abar = 0) needs no special
case.
"""

from typing import Literal

from jaxtyping import Float
from torch import Tensor

from sds_clip.models.shapes import Maps, PerSample

PredictionType = Literal["epsilon", "v_prediction"]


def add_noise(latents: Maps, noise: Maps, alphas_cumprod: PerSample) -> Maps:
    """z_t = sqrt(abar_t) z_0 + sqrt(1 - abar_t) eps (DDPM, arXiv 2006.11239, equation 4)."""
    signal, disturbance = _signal_and_noise(alphas_cumprod)
    return signal * latents + disturbance * noise


def velocity(latents: Maps, noise: Maps, alphas_cumprod: PerSample) -> Maps:
    """v = sqrt(abar_t) eps - sqrt(1 - abar_t) z_0 (arXiv 2202.00512, appendix D). At abar = 0 it is -z_0."""
    signal, disturbance = _signal_and_noise(alphas_cumprod)
    return signal * noise - disturbance * latents


def epsilon_of(
    output: Maps, noisy_latents: Maps, alphas_cumprod: PerSample, prediction_type: PredictionType
) -> Maps:
    """Return the predicted noise eps_hat, given the denoiser's output for z_t.

    For epsilon it is the output itself. For v_prediction the output is the `velocity`, and
    eps_hat = sqrt(abar_t) v + sqrt(1 - abar_t) z_t.
    """
    if prediction_type == "epsilon":
        return output
    signal, disturbance = _signal_and_noise(alphas_cumprod)
    return signal * output + disturbance * noisy_latents


def _signal_and_noise(alphas_cumprod: PerSample) -> tuple[Float[Tensor, "b 1 1 1"], Float[Tensor, "b 1 1 1"]]:
    abar = alphas_cumprod[:, None, None, None]
    return abar.sqrt(), (1 - abar).sqrt()
