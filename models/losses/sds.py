"""L_SDS: how well the frozen diffusion model denoises what the mapper makes of an image's features."""

from typing import NamedTuple, Protocol, get_args, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from sds_clip.models.choices import Gradient
from sds_clip.models.errors import LossError
from sds_clip.models.losses.weighting import weight
from sds_clip.models.noise import Levels
from sds_clip.models.shapes import Maps, PerSample, Timesteps, Tokens


@runtime_checkable
class NoisePredictor(Protocol):
    """What the loss needs from a teacher, whose weights are frozen."""

    @property
    def levels(self) -> Levels:
        """s and n of every timestep."""

    def add_noise(self, latents: Maps, noise: Maps, timesteps: Timesteps) -> Maps:
        """z_t = s z_0 + n eps."""

    def noise_pred(self, noisy_latents: Maps, timesteps: Timesteps, captions: Tokens) -> Maps:
        """eps_hat = eps_theta(z_t, t, c), differentiable in z_t and c."""


class DenoisingLoss(NamedTuple):
    """The scalar to backpropagate, and what to log with it."""

    loss: Float[Tensor, ""]
    residual: PerSample
    """|| eps_hat - eps ||^2 of each sample, mean over its elements: unweighted and detached."""


def sds_loss(
    latents: Maps,
    captions: Tokens,
    timesteps: Timesteps,
    noise: Maps,
    *,
    teacher: NoisePredictor,
    weighting: str = "uniform",
    gradient: str = "full",
    gamma: float = 5.0,
) -> DenoisingLoss:
    """Return the denoising error of the mapped image features under their caption (arXiv 2307.09233).

    The objective `condition` gives it the VAE's latents, and the mapped features in the caption's place.

    L_SDS = (1/N) sum w(t) (eps_theta(z_t, t, c) - eps)^2 over all N = b c h w elements, in float32, with
    z_t = s z_0 + n eps and z_0 = `latents`.

    Gradients go to `latents`, and with `full` also to `captions`, if they require them. `full` differentiates
    through the frozen denoiser. `sds` (arXiv 2209.14988, equation 3) omits the denoiser's Jacobian and runs it
    without a graph. The loss then has the same value, but its gradient on z_0 is
    (2/N) w(t) s (eps_hat - eps), which is not the gradient of that value.

    Raises LossError for an unknown gradient or weighting, and for latents and noise of different shapes.
    """
    if gradient not in get_args(Gradient):
        raise LossError(f"The gradient cannot be {gradient!r}; use {' or '.join(get_args(Gradient))}.")
    if latents.shape != noise.shape:
        raise LossError(
            f"The latents have shape {tuple(latents.shape)}, but the noise has shape "
            f"{tuple(noise.shape)}. Make the mapper for this teacher's latent shape."
        )
    latents, noise = latents.float(), noise.float()
    levels = teacher.levels[timesteps]
    w = weight(weighting, levels, gamma=gamma)
    with torch.set_grad_enabled(gradient == "full" and torch.is_grad_enabled()):
        noisy_latents = teacher.add_noise(latents, noise, timesteps)
        error = teacher.noise_pred(noisy_latents, timesteps, captions).float() - noise
        residual = error.square().mean(dim=(1, 2, 3))
        loss = (w * residual).mean()
    if gradient == "sds":
        on_latents = 2 / error.numel() * (w * levels.signal_power.sqrt())[:, None, None, None] * error
        # Adds exactly 0 to the value, and on_latents to the gradient.
        loss = loss + (on_latents * (latents - latents.detach())).sum()
    return DenoisingLoss(loss, residual.detach())
