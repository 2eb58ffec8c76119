"""The objective as a function of the student's features: L_CLIP and, if configured, negatives and a teacher's loss."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from sds_clip.models.losses.contrastive import contrastive_loss
from sds_clip.models.losses.score import hard_negative_loss, score_distillation_loss, teacher_choice
from sds_clip.models.training.config import FinetuneConfig
from sds_clip.models.training.distillation.teacher_loss import TeacherLoss
from sds_clip.models.training.part import Part
from sds_clip.models.training.score_targets import Targets, candidates_of


@dataclass(frozen=True, eq=False)
class Losses:
    """Two weighted scalars, whose sum is minimised, and what is logged by name: terms, residuals, latents."""

    contrastive: Float[Tensor, ""]
    """L_CLIP plus the weighted loss on the negatives."""
    teacher: Float[Tensor, ""] | None
    """The weighted loss by the teacher. Its gradients reach only the image features and the mapper."""
    terms: dict[str, Tensor]


@dataclass(frozen=True, eq=False)
class Objective:
    """The losses of one run, with the terms that `FinetuneConfig` describes."""

    config: FinetuneConfig
    steps: int
    teacher_loss: TeacherLoss | None = None
    targets: Targets | None = None

    @property
    def mapper(self) -> dict[str, nn.Parameter]:
        """The mapper's parameters by name; none without a teacher's loss."""
        return dict(self.teacher_loss.mapper.named_parameters()) if self.teacher_loss else {}

    def __call__(
        self,
        image_features: Float[Tensor, "b d"],
        text_features: Float[Tensor, "b d"],
        negative_features: Float[Tensor, "m d"],
        logit_scale: Float[Tensor, ""],
        logit_bias: Float[Tensor, ""] | None,
        part: Part,
        step: int,
        *,
        with_gap: bool = False,
    ) -> Losses:
        """Compute all terms of the loss in float32, from features that are not normalised.

        `negative_features` are those of the part's negatives, one sample's after the other. `with_gap` also
        computes the residual under shuffled captions, which has no gradient.
        """
        image, text = F.normalize(image_features, dim=-1), F.normalize(text_features, dim=-1)
        negative = F.normalize(negative_features, dim=-1)
        kind = self.config.negatives_loss if self.config.uses_negatives else None
        contrast = negative if kind == "contrast" else None
        clip = contrastive_loss(image, text, logit_scale, logit_bias=logit_bias, negatives=contrast)
        terms, contrastive, weighted = {"clip": clip}, clip, None
        if kind == "choice":
            choice = self._choice(image, text, negative, logit_scale, part)
            terms |= choice
            contrastive = contrastive + self.config.negatives_weight * choice["negatives"]
        if self.teacher_loss is not None:
            by_teacher = self.teacher_loss(image_features, part, step, with_gap=with_gap)
            weighted = self.config.teacher_weight * by_teacher[self.teacher_loss.name]
            terms |= by_teacher
        return Losses(contrastive, weighted, terms)

    def _choice(
        self, image: Tensor, text: Tensor, negative: Tensor, scale: Tensor, part: Part
    ) -> dict[str, Tensor]:
        """Compute the terms of each image's choice among its caption, in column 0, and its negatives.

        Without the caption among the candidates, the choice is among the negatives alone.
        """
        config = self.config
        features, valid = _padded(negative, [len(texts) for texts in part.negatives], config.negatives_count)
        with_caption = self.targets is None or config.score_candidates == "all"
        if with_caption:
            features = torch.cat([text[part.places, None], features], dim=1)
            valid = F.pad(valid, (1, 0), value=True)
        else:  # a sample without negatives has one candidate, which teaches nothing
            valid = F.pad(valid[:, 1:], (1, 0), value=True)
        logits = scale * torch.einsum("bd,bnd->bn", image[part.places], features)
        if self.targets is None:
            return {"negatives": hard_negative_loss(logits, valid=valid)}
        captions = zip(part.captions, part.negatives, strict=True)
        candidates = [candidates_of(config, caption, negatives) for caption, negatives in captions]
        errors = self.targets(part.samples, candidates, logits.shape[1])
        temperature = config.score_temperature
        choice = teacher_choice(errors, temperature=temperature, valid=valid)
        if config.score_labels == "hard":
            loss = hard_negative_loss(logits, right=choice.argmax(dim=1), valid=valid)
        else:
            loss = score_distillation_loss(logits, errors, temperature=temperature, valid=valid)
        target = (choice[:, 0] if with_caption else choice.amax(dim=1)).exp()
        count = valid.sum(dim=1)
        return {
            "negatives": loss,
            "target_own" if with_caption else "target_best": _mean(target, count > 1),
            "target_chance": _mean(1 / count, count > 1),
        }


def _mean(values: Float[Tensor, " b"], counted: Bool[Tensor, " b"]) -> Float[Tensor, ""]:
    """The mean of those that are counted, or 0 if none is."""
    return (values * counted).sum() / counted.sum().clamp_min(1)


def _padded(
    rows: Float[Tensor, "m d"], counts: list[int], width: int
) -> tuple[Float[Tensor, "b {width} d"], Bool[Tensor, "b {width}"]]:
    """Pad rows, `counts[i]` of which belong to sample i, with zeros to `width`, and return which are real."""
    assert max(counts, default=0) <= width
    real = torch.arange(width, device=rows.device) < torch.tensor(counts, device=rows.device)[:, None]
    columns = rows.new_zeros(len(counts), width, rows.shape[1])
    return columns.masked_scatter(real[:, :, None], rows), real
