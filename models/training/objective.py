"""The objective as a function of the student's features: L_CLIP and, if configured, L_SDS and negatives."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, floor

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from models.losses.contrastive import contrastive_loss
from models.losses.score import hard_negative_loss, score_distillation_loss, teacher_choice
from models.losses.sds import caption_residual, sds_loss
from models.mapper import Mapper
from models.teacher.teacher import Teacher
from models.training.config import FinetuneConfig
from models.training.randomness import draw_noise, draw_timesteps
from models.training.score_targets import Targets


@dataclass(frozen=True, eq=False)
class Part:
    """The part of a batch that the teacher sees: its `places` in the batch, and its samples."""

    places: list[int]
    samples: list[int]
    captions: list[str]
    negatives: list[tuple[str, ...]]
    embeddings: Float[Tensor, "b s e"] | None
    """The captions as the teacher's denoiser takes them, if L_SDS is used."""


@dataclass(frozen=True, eq=False)
class Losses:
    """Two weighted scalars, whose sum is minimised, and what is logged by name: terms, residuals, latents."""

    contrastive: Float[Tensor, ""]
    """L_CLIP plus the weighted loss on the negatives."""
    sds: Float[Tensor, ""] | None
    """lambda L_SDS. Its gradients reach only the image features and the mapper."""
    terms: dict[str, Tensor]


@dataclass(frozen=True, eq=False)
class Objective:
    """The losses of one run, with the terms that `FinetuneConfig` describes."""

    config: FinetuneConfig
    steps: int
    teacher: Teacher | None = None
    mapper: Mapper | None = None
    targets: Targets | None = None

    def __call__(
        self,
        image_features: Float[Tensor, "b d"],
        text_features: Float[Tensor, "b d"],
        negative_features: Float[Tensor, "m d"],
        logit_scale: Float[Tensor, ""],
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
        kind = None if self.config.negatives == "none" else self.config.negatives_loss
        contrast = negative if kind == "contrast" else None
        clip = contrastive_loss(image, text, logit_scale, negatives=contrast)
        terms, contrastive, weighted = {"clip": clip}, clip, None
        if kind == "choice":
            choice = self._choice(image, text, negative, logit_scale, part)
            terms |= choice
            contrastive = contrastive + self.config.negatives_weight * choice["negatives"]
        if self.config.uses_sds:
            sds = self._sds(image_features, part, step, with_gap)
            weighted = self.config.sds_weight * sds["sds"]
            terms |= sds
        return Losses(contrastive, weighted, terms)

    def _choice(
        self, image: Tensor, text: Tensor, negative: Tensor, scale: Tensor, part: Part
    ) -> dict[str, Tensor]:
        """Compute the terms of each image's choice among its caption, in column 0, and its negatives."""
        columns, valid = _padded(
            negative, [len(texts) for texts in part.negatives], self.config.negatives_count
        )
        candidates = torch.cat([text[part.places, None], columns], dim=1)
        logits = scale * torch.einsum("bd,bnd->bn", image[part.places], candidates)
        valid = F.pad(valid, (1, 0), value=True)
        if self.targets is None:
            return {"negatives": hard_negative_loss(logits, valid=valid)}
        errors = self.targets(part.samples, part.captions, part.negatives, logits.shape[1])
        temperature = self.config.score_temperature
        return {
            "negatives": score_distillation_loss(logits, errors, temperature=temperature, valid=valid),
            "target_own": teacher_choice(errors, temperature=temperature, valid=valid)[:, 0].exp().mean(),
            "target_chance": (1 / valid.sum(dim=1)).mean(),
        }

    def _sds(self, image_features: Tensor, part: Part, step: int, with_gap: bool) -> dict[str, Tensor]:
        assert self.teacher is not None
        assert self.mapper is not None
        assert part.embeddings is not None
        features = image_features[part.places]
        if step < self.config.mapper_warmup_steps:
            features = features.detach()  # L_SDS trains the mapper alone in its warm-up
        latents = self.mapper(features)
        low, high = timestep_range(self.config, self.teacher.timesteps, step, self.steps)
        seed, device = self.config.seed, latents.device
        timesteps = draw_timesteps(seed, step, part.samples, low, high).to(device)
        noise = draw_noise(seed, step, part.samples, self.teacher.latent_shape).to(device)
        captions = part.embeddings
        loss, residual = sds_loss(
            latents,
            captions,
            timesteps,
            noise,
            teacher=self.teacher,
            weighting=self.config.weighting,
            gradient=self.config.gradient,
            gamma=self.config.min_snr_gamma,
        )
        terms = {"sds": loss, "residual": residual.mean()}
        if with_gap and len(captions) > 1:  # a single sample has no other caption
            terms["latents_rms"] = latents.detach().square().mean().sqrt()
            terms["latents_spread"] = latents.detach().std(dim=0).mean()
            shuffled = captions.roll(1, dims=0)
            other = caption_residual(latents, shuffled, timesteps, noise, teacher=self.teacher)
            terms["residual_shuffled"] = other.mean()
        return terms


def timestep_range(config: FinetuneConfig, timesteps: int, step: int, steps: int) -> tuple[int, int]:
    t_max = config.t_max
    if config.t_schedule == "annealed":
        t_max -= (config.t_max - config.t_min) / 2 * step / max(steps - 1, 1)
    low = ceil(config.t_min * (timesteps - 1))
    return low, max(low, floor(t_max * (timesteps - 1)))


def _padded(
    rows: Float[Tensor, "m d"], counts: list[int], width: int
) -> tuple[Float[Tensor, "b {width} d"], Bool[Tensor, "b {width}"]]:
    """Pad rows, `counts[i]` of which belong to sample i, with zeros to `width`, and return which are real."""
    real = torch.arange(width, device=rows.device) < torch.tensor(counts, device=rows.device)[:, None]
    columns = rows.new_zeros(len(counts), width, rows.shape[1])
    return columns.masked_scatter(real[:, :, None], rows), real
