"""`condition`: the image's features are the condition under which its own latents are denoised (arXiv 2407.20171)."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from sds_clip.models.training.distillation.teacher_loss import TeacherLoss
from sds_clip.models.training.latents import Latents
from sds_clip.models.training.part import Part


@dataclass(frozen=True, eq=False)
class ConditionLoss(TeacherLoss):
    """DIVA's loss: || eps_theta(z_t, t, W f(x)) - eps ||^2 on the VAE's latents of x.

    W f(x) stands where a caption's tokens stand. No caption has a part in it.
    """

    name: ClassVar[str] = "condition"
    gradient: ClassVar[str | None] = "full"

    latents: Latents

    def inputs(self, mapped: Tensor, part: Part) -> tuple[Tensor, Tensor]:
        return self.latents(part.samples), self.teacher.condition(mapped)
