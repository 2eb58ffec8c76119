"""`noise-contrast`: an image's own features lead to the truth, and away from what others lead to (arXiv 2603.04803)."""

from typing import ClassVar

from torch import Tensor

from sds_clip.models.choices import NOISE_CONTRAST_GROUP
from sds_clip.models.losses.noise_contrast import noise_contrast_loss
from sds_clip.models.losses.sds import DenoisingLoss
from sds_clip.models.training.distillation.condition import ConditionLoss


class NoiseContrastLoss(ConditionLoss):
    """DCR's loss on the inputs of L_condition, without its second view of each image (docs/decisions/0077)."""

    name: ClassVar[str] = "noise_contrast"

    def loss(self, latents: Tensor, captions: Tensor, timesteps: Tensor, noise: Tensor) -> DenoisingLoss:
        return noise_contrast_loss(
            latents, captions, timesteps, noise, teacher=self.teacher, group=NOISE_CONTRAST_GROUP,
            weighting=self.config.weighting, gamma=self.config.min_snr_gamma,
        )  # fmt: skip
