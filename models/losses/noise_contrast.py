"""L_noise: InfoNCE over the noise that a frozen diffusion model predicts under different conditions."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from models.errors import LossError
from models.losses.sds import DenoisingLoss, NoisePredictor
from models.losses.weighting import weight

TEMPERATURE = 0.1
"""That of DCR (arXiv 2603.04803)."""


def noise_contrast_loss(
    latents: Float[Tensor, "b c h w"],
    conditions: Float[Tensor, "b s e"],
    timesteps: Int[Tensor, " b"],
    noise: Float[Tensor, "b c h w"],
    *,
    teacher: NoisePredictor,
    group: int,
    weighting: str = "uniform",
    gamma: float = 5.0,
) -> DenoisingLoss:
    """Return how badly a teacher's own predictions tell the true noise from what it predicts under wrong conditions.

    Each `group` samples in order contrast one another. e_ij is what the teacher predicts for sample i's noisy latents
    under the condition of sample j, and tau is TEMPERATURE. In float32:

    s_i = cos(e_ii, eps_i) / tau,    s_ij = cos(e_ii, e_ij) / tau
    L   = -(1/b) sum_i w(t_i) log( exp(s_i) / (exp(s_i) + sum_j exp(s_ij)) )

    Here j goes over the other samples of i's group. Gradients go to the conditions of the whole group, through the
    frozen denoiser, which predicts b * group noises.

    Raises LossError if the samples are not whole groups, and for an unknown weighting.
    """
    if len(latents) % group:
        raise LossError(f"{len(latents)} samples cannot be split into groups of {group}.")
    w = weight(weighting, teacher.alphas_cumprod[timesteps], gamma=gamma)
    latents, noise = latents.float(), noise.float()
    noisy = teacher.add_noise(latents, noise, timesteps).repeat_interleave(group, dim=0)
    places = torch.arange(group, device=noise.device)
    own_first = (places[:, None] + places) % group
    in_groups = conditions.view(-1, group, *conditions.shape[1:])[:, own_first]
    predicted = teacher.noise_pred(noisy, timesteps.repeat_interleave(group), in_groups.flatten(0, 2)).float()
    own, *others = F.normalize(predicted.flatten(1), dim=1).view(len(noise), group, -1).unbind(dim=1)
    candidates = torch.stack([F.normalize(noise.flatten(1), dim=1), *others], dim=1)
    logits = torch.einsum("bd,bnd->bn", own, candidates) / TEMPERATURE
    loss = (w * -logits.log_softmax(dim=1)[:, 0]).mean()
    residual = (predicted[::group].detach() - noise).square().mean(dim=(1, 2, 3))
    return DenoisingLoss(loss, residual)
