"""A teacher's residual gap on real latents, to judge the gap on latents made by a mapper."""

from __future__ import annotations

from functools import cache

import PIL.Image
import torch
from torch import Tensor

from demo.sets import retrieval_set
from demo.world import Split
from models.clip import Clip
from models.losses.sds import caption_residual
from models.teacher.pixels import teacher_view
from models.teacher.teacher import Teacher
from models.training.config import FinetuneConfig
from models.training.distillation.teacher_loss import timestep_range
from models.training.randomness import draw_noise, draw_timesteps

PAIRS = 512
BATCH = 64


def real_residuals(
    config: FinetuneConfig, base: Clip, teacher: Teacher, count: int = PAIRS
) -> dict[str, float]:
    """The residuals of validation images' VAE latents under true and shuffled captions, as a run logs them.

    Timesteps are from the range of the run's last step; they and the noise are the same for all runs.
    """
    assert config.steps is not None
    low, high = timestep_range(config, teacher.timesteps, config.steps - 1, config.steps)
    return _residuals(base, teacher, low, high, count)


@cache
def _residuals(base: Clip, teacher: Teacher, low: int, high: int, count: int) -> dict[str, float]:
    pairs = retrieval_set(Split.VALIDATION, count)
    view = teacher_view(base, teacher.resolution_px)
    own: list[Tensor] = []
    other: list[Tensor] = []
    for places in torch.split(torch.arange(count), BATCH):
        samples = places.tolist()
        pixels = torch.stack([view(PIL.Image.fromarray(pairs.images[index])) for index in samples])
        latents = teacher.encode_image(pixels)
        captions = teacher.encode_captions([pairs.captions[index] for index in samples])
        timesteps = draw_timesteps(0, 0, samples, low, high)
        noise = draw_noise(0, 0, samples, teacher.latent_shape)
        for residuals, said in ((own, captions), (other, captions.roll(1, dims=0))):
            residuals.append(caption_residual(latents, said, timesteps, noise, teacher=teacher))
    return {"residual": torch.cat(own).mean().item(), "residual_shuffled": torch.cat(other).mean().item()}
