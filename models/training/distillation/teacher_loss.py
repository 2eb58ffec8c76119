"""What every such loss has in common: a mapper, the draws of noise, and what is logged."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from math import ceil, floor
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from sds_clip.models.losses.sds import DenoisingLoss, sds_loss
from sds_clip.models.mapper import Mapper
from sds_clip.models.shapes import Maps, Timesteps, Tokens
from sds_clip.models.teacher.teacher import Teacher
from sds_clip.models.training.config import FinetuneConfig
from sds_clip.models.training.part import Part
from sds_clip.models.training.randomness import draw_noise, draw_timesteps


@dataclass(frozen=True, eq=False)
class TeacherLoss(ABC):
    """A loss by what the teacher predicts, where what the mapper makes of the image features is one of its inputs."""

    name: ClassVar[str]
    """The loss's name in the log."""
    gradient: ClassVar[str | None] = None
    """How the error is differentiated, if that is not configured."""

    config: FinetuneConfig
    steps: int
    teacher: Teacher
    mapper: Mapper

    @abstractmethod
    def inputs(self, mapped: Float[Tensor, "b ..."], part: Part) -> tuple[Maps, Tokens]:
        """Return the latents to which noise is added, and the captions under which they are denoised."""

    def loss(self, latents: Maps, captions: Tokens, timesteps: Timesteps, noise: Maps) -> DenoisingLoss:
        """Return the unweighted loss: the denoising error, unless an objective has another."""
        return sds_loss(
            latents, captions, timesteps, noise, teacher=self.teacher, weighting=self.config.weighting,
            gradient=self.gradient or self.config.gradient, gamma=self.config.min_snr_gamma,
        )  # fmt: skip

    def __call__(
        self, image_features: Float[Tensor, "b d"], part: Part, step: int, *, with_gap: bool
    ) -> dict[str, Tensor]:
        """Return the unweighted loss by its name, and what is logged with it.

        `with_gap` also computes the residual under shuffled captions, which has no gradient.
        """
        config, teacher = self.config, self.teacher
        features = image_features[part.places]
        if step < config.mapper_warmup_steps:
            features = features.detach()  # only the mapper is trained in its warm-up
        mapped = self.mapper(features)
        latents, captions = self.inputs(mapped, part)
        low, high = timestep_range(config, teacher.timesteps, step, self.steps)
        timesteps = draw_timesteps(config.seed, step, part.samples, low, high).to(latents.device)
        noise = draw_noise(config.seed, step, part.samples, teacher.latent_shape).to(latents.device)
        loss, residual = self.loss(latents, captions, timesteps, noise)
        terms = {self.name: loss, "residual": residual.mean()}
        if with_gap and len(captions) > 1:  # a single sample has no other caption
            terms["mapped_rms"] = mapped.detach().square().mean().sqrt()
            terms["mapped_spread"] = mapped.detach().std(dim=0).mean()
            # A mapper can learn flat latents that are easy to denoise under any caption. The signal is the gap between
            # the residuals under another caption and the sample's own.
            with torch.no_grad():
                other = sds_loss(latents, captions.roll(1, dims=0), timesteps, noise, teacher=teacher)
            terms["residual_shuffled"] = other.residual.mean()
        return terms


def timestep_range(config: FinetuneConfig, timesteps: int, step: int, steps: int) -> tuple[int, int]:
    t_max = config.t_max
    if config.t_schedule == "annealed":
        t_max -= (config.t_max - config.t_min) / 2 * step / max(steps - 1, 1)
    low = ceil(config.t_min * (timesteps - 1))
    return low, max(low, floor(t_max * (timesteps - 1)))
