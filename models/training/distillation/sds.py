"""`sds-clip`: the image's features are the latents, and its caption is the condition (arXiv 2307.09233)."""

from typing import ClassVar

from torch import Tensor

from sds_clip.models.training.distillation.teacher_loss import TeacherLoss
from sds_clip.models.training.part import Part


class SdsLoss(TeacherLoss):
    """L_SDS: how well the teacher denoises what the mapper makes of the image features, under the caption."""

    name: ClassVar[str] = "sds"

    def inputs(self, mapped: Tensor, part: Part) -> tuple[Tensor, Tensor]:
        assert part.embeddings is not None
        return mapped, part.embeddings
