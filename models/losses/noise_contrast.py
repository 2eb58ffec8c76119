"""L_noise: InfoNCE over what a frozen diffusion model predicts under different conditions."""

import torch
import torch.nn.functional as F

from sds_clip.models.errors import LossError
from sds_clip.models.losses.sds import DenoisingLoss, NoisePredictor
from sds_clip.models.losses.weighting import weight
from sds_clip.models.noise import noise_offset
from sds_clip.models.shapes import Maps, Timesteps, Tokens

TEMPERATURE = 0.1
"""That of DCR (arXiv 2603.04803)."""


def noise_contrast_loss(
    latents: Maps,
    conditions: Tokens,
    timesteps: Timesteps,
    noise: Maps,
    *,
    teacher: NoisePredictor,
    group: int,
    weighting: str = "uniform",
    gamma: float = 5.0,
) -> DenoisingLoss:
    """Return how badly a prediction under the own condition is told from predictions under others, by the truth.

    Each `group` samples in a row contrast one another. v_i is the true velocity of sample i's noisy latents, v_ij is
    the one that the teacher predicts for them under the condition of sample j, and tau is TEMPERATURE. In float32:

    s_i = cos(v_ii, v_i) / tau,    s_ij = cos(v_ii, v_ij) / tau
    L   = -(1/b) sum_i w(t_i) log( exp(s_i) / (exp(s_i) + sum_j exp(s_ij)) )

    Here j goes over the other samples of i's group. The velocity is used for teachers that predict the noise, too: at
    high noise, all predicted noises are nearly z_t itself. Gradients go to the conditions of the whole group, through
    the frozen denoiser, which predicts b * group times.

    Raises LossError if the samples are not whole groups, and for an unknown weighting.
    """
    if len(latents) % group:
        raise LossError(f"{len(latents)} samples cannot be split into groups of {group}.")
    levels = teacher.levels[timesteps]
    w = weight(weighting, levels, gamma=gamma)
    latents, noise = latents.float(), noise.float()
    noisy = teacher.add_noise(latents, noise, timesteps)
    # Without it, noise is s times the velocity, which has the velocity's direction.
    offset = noise_offset(noisy, levels)
    true = noise - offset

    places = torch.arange(group, device=noise.device)
    own_first = (places[:, None] + places) % group
    under = conditions.view(-1, group, *conditions.shape[1:])[:, own_first].flatten(0, 2)
    asked = (noisy.repeat_interleave(group, dim=0), timesteps.repeat_interleave(group), under)
    predicted = teacher.noise_pred(*asked).float() - offset.repeat_interleave(group, dim=0)

    own, *others = F.normalize(predicted.flatten(1), dim=1).view(len(noise), group, -1).unbind(dim=1)
    candidates = torch.stack([F.normalize(true.flatten(1), dim=1), *others], dim=1)
    logits = torch.einsum("bd,bnd->bn", own, candidates) / TEMPERATURE
    loss = (w * -logits.log_softmax(dim=1)[:, 0]).mean()
    residual = (predicted[::group].detach() - true).square().mean(dim=(1, 2, 3))
    return DenoisingLoss(loss, residual)
