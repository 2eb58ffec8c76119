"""The objective as a function of the student's features: L_CLIP and the weighted terms that are configured."""

from dataclasses import dataclass, field
from functools import partial

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from sds_clip.models.data.pairs import kind_of
from sds_clip.models.losses.ce_clip import intra_modal_loss, rank_loss
from sds_clip.models.losses.contrastive import contrastive_loss
from sds_clip.models.losses.forgetting import feature_distillation_loss, similarity_distillation_loss
from sds_clip.models.losses.paraphrase import paraphrase_loss
from sds_clip.models.losses.score import hard_negative_loss, score_distillation_loss, teacher_choice
from sds_clip.models.training.config import FinetuneConfig
from sds_clip.models.training.distillation.teacher_loss import TeacherLoss
from sds_clip.models.training.part import Part
from sds_clip.models.training.processes import exchanged
from sds_clip.models.training.score_targets import Targets, candidates_of

TEACHER_WEIGHT, WEIGHED_STEPS = "teacher_weight", "weighed_steps"
"""What `Objective.state` holds with lambda: auto: the mean weight, and of how many steps it is."""
_THRESHOLD = "rank_threshold "


@dataclass(frozen=True, eq=False)
class Features:
    """What the student makes of a batch, and the base. All rows are L2-normalised but the first ones."""

    encoded_image: Float[Tensor, "b d"]
    image: Float[Tensor, "b d"]
    text: Float[Tensor, "b d"]
    negative: Float[Tensor, "m d"]
    """Those of the part's negatives, one sample's after the other."""
    pairs: tuple[Float[Tensor, "p d"], Float[Tensor, "p d"]]
    """Two captions of each image that has two, if they are aligned."""
    logit_scale: Float[Tensor, ""]
    logit_bias: Float[Tensor, ""] | None = None
    base: tuple[Float[Tensor, "b d"], Float[Tensor, "b d"], Float[Tensor, ""]] | None = None
    """The base's images, texts and logit scale."""


@dataclass(frozen=True, eq=False)
class Losses:
    """Two weighted scalars, whose sum is minimised, and what is logged by name: terms, residuals, latents."""

    contrastive: Float[Tensor, ""]
    """L_CLIP plus the weighted terms without a teacher's denoiser."""
    teacher: Float[Tensor, ""] | None
    """The weighted loss by the teacher. Its gradients reach only the image features and the mapper."""
    terms: dict[str, Tensor]
    state: dict[str, float] = field(default_factory=dict)
    """What the step adds to the objective's state once it is taken."""


@dataclass(frozen=True, eq=False)
class Objective:
    """The losses of one run, with the terms that `FinetuneConfig` describes."""

    config: FinetuneConfig
    steps: int
    teacher_loss: TeacherLoss | None = None
    targets: Targets | None = None
    state: dict[str, float] = field(default_factory=dict)
    """What losses learn from the steps, alike in all processes: thresholds, and the weight of lambda: auto."""

    @property
    def mapper(self) -> dict[str, nn.Parameter]:
        """The mapper's parameters by name; none without a teacher's loss."""
        return dict(self.teacher_loss.mapper.named_parameters()) if self.teacher_loss else {}

    @property
    def _with_caption(self) -> bool:
        return self.targets is None or self.config.score_candidates == "all"

    @property
    def teacher_weight(self) -> float:
        weight = self.config.teacher_weight
        return self.state.get(TEACHER_WEIGHT, 1.0) if weight == "auto" else weight

    def __call__(self, features: Features, part: Part, step: int, *, with_gap: bool = False) -> Losses:
        """Compute all terms of the loss in float32.

        `with_gap` also computes the residual under shuffled captions, which has no gradient.
        """
        config = self.config
        is_contrast = config.uses_negatives and config.negatives_loss == "contrast"
        clip = contrastive_loss(
            features.image, features.text, features.logit_scale, logit_bias=features.logit_bias,
            negatives=features.negative if is_contrast else None,
        )  # fmt: skip
        terms, contrastive, weighted = {"clip": clip}, clip, None
        own, state = self._on_negatives(features, part)
        own |= _on_batch(config, features)
        for name, value in own.items():
            if not name.startswith("target_"):  # these are only logged
                contrastive = contrastive + getattr(config, f"{name}_weight") * value
        terms |= own
        if self.teacher_loss is not None:
            by_teacher = self.teacher_loss(features.encoded_image, part, step, with_gap=with_gap)
            weighted = self.teacher_weight * by_teacher[self.teacher_loss.name]
            terms |= by_teacher
        return Losses(contrastive, weighted, terms, state)

    def _on_negatives(self, features: Features, part: Part) -> tuple[dict[str, Tensor], dict[str, float]]:
        """Compute the terms on each image's caption and its negatives, and the thresholds of the next step."""
        config = self.config
        is_choice = config.negatives_loss == "choice"
        if not config.uses_negatives or not (is_choice or config.intra_modal_weight or config.rank_weight):
            return {}, {}
        scale, text = features.logit_scale, features.text[part.places]
        rows, valid = _padded(
            features.negative, [len(texts) for texts in part.negatives], config.negatives_count
        )
        candidates = torch.cat([text[:, None], rows], dim=1) if self._with_caption else rows
        logits = scale * torch.einsum("bd,bnd->bn", features.image[part.places], candidates)
        terms: dict[str, Tensor] = {}
        state: dict[str, float] = {}
        if is_choice:
            terms |= self._choice(logits, valid, part)
        if config.intra_modal_weight:
            terms["intra_modal"] = intra_modal_loss(
                logits, scale * torch.einsum("bd,bnd->bn", text, rows), valid
            )
        if config.rank_weight:
            kinds = [kind_of(text) for texts in part.negatives for text in texts]
            known = logits.new_tensor([self.state.get(_THRESHOLD + kind, 0.0) for kind in kinds])
            thresholds = torch.zeros_like(rows[:, :, 0]).masked_scatter(valid, known)
            terms["rank"] = rank_loss(logits, thresholds, valid)
            state = self._thresholds(kinds, (logits[:, :1] - logits[:, 1:]).detach()[valid].tolist())
        return terms, state

    def _thresholds(self, kinds: list[str], gaps: list[float]) -> dict[str, float]:
        """Return the mean distance of each kind of negative in this step, over all processes, up to its bound."""
        by_kind: dict[str, list[float]] = {}
        for of_one in exchanged(list(zip(kinds, gaps, strict=True))):
            for kind, gap in of_one:
                by_kind.setdefault(kind, []).append(gap)
        bound = self.config.rank_max_threshold
        return {_THRESHOLD + kind: min(sum(each) / len(each), bound) for kind, each in by_kind.items()}

    def _choice(
        self, logits: Float[Tensor, "b candidates"], valid: Bool[Tensor, "b n"], part: Part
    ) -> dict[str, Tensor]:
        """Compute the terms of each image's choice among its caption, in column 0, and its negatives.

        Without the caption among the candidates, the choice is among the negatives alone.
        """
        config, with_caption = self.config, self._with_caption
        # A sample without negatives has one candidate, which teaches nothing.
        valid = F.pad(valid if with_caption else valid[:, 1:], (1, 0), value=True)
        hard = partial(
            hard_negative_loss, logits, valid=valid,
            focal_gamma=config.negatives_focal_gamma, label_smoothing=config.negatives_label_smoothing,
        )  # fmt: skip
        if self.targets is None:
            return {"negatives": hard()}
        captions = zip(part.captions, part.negatives, strict=True)
        candidates = [candidates_of(config, caption, negatives) for caption, negatives in captions]
        errors = self.targets(part.samples, candidates, logits.shape[1])
        temperature = config.score_temperature
        choice = teacher_choice(errors, temperature=temperature, valid=valid)
        if config.score_labels == "hard":
            loss = hard(right=choice.argmax(dim=1))
        else:
            loss = score_distillation_loss(logits, errors, temperature=temperature, valid=valid)
        target = (choice[:, 0] if with_caption else choice.amax(dim=1)).exp()
        count = valid.sum(dim=1)
        return {
            "negatives": loss,
            "target_own" if with_caption else "target_best": _mean(target, count > 1),
            "target_chance": _mean(1 / count, count > 1),
        }


def _on_batch(config: FinetuneConfig, features: Features) -> dict[str, Tensor]:
    """Compute the terms that need neither negatives nor a teacher."""
    terms = {}
    if config.paraphrase_weight:
        terms["paraphrase"] = paraphrase_loss(*features.pairs, features.logit_scale)
    if features.base is None:
        return terms
    image, text, scale = features.base
    if config.feature_distillation_weight:
        terms["feature_distillation"] = feature_distillation_loss(features.image, features.text, image, text)
    if config.similarity_distillation_weight:
        terms["similarity_distillation"] = similarity_distillation_loss(
            features.image, features.text, features.logit_scale, image, text, scale
        )
    return terms


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
