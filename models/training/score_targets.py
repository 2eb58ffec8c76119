"""The teacher's denoising scores of training samples under their captions and hard negatives."""

from collections.abc import Callable, Sequence
from typing import Any

import PIL.Image
import torch
from jaxtyping import Float
from torch import Tensor

from models.data.pairs import PairSet
from models.diffusion_score import ErrorOf, denoising_errors, draws
from models.teacher.teacher import Teacher


class ScoreTargets:
    """d(x, c) of a sample's captions, each computed once.

    The noise belongs to the sample and not to the step, so what was scored in one epoch holds in the next. A
    sample is scored alone and in one shape, so its numbers do not depend on which others were known already.
    """

    def __init__(
        self,
        teacher: Teacher,
        pairs: PairSet,
        view: Callable[[PIL.Image.Image], Float[Tensor, "3 h w"]],
        *,
        seed: int,
        count: int,
        t_min: float,
        t_max: float,
        error_of: ErrorOf = "epsilon",
        known: dict[Any, Tensor] | None = None,
    ) -> None:
        """`view` makes an image the VAE's input; `known` may be shared by runs of one teacher, data and seed."""
        self._teacher = teacher
        self._pairs = pairs
        self._view = view
        self._seed = seed
        self._count, self._range, self._error_of = count, (t_min, t_max), error_of
        self._known: dict[Any, Tensor] = {} if known is None else known

    def __call__(
        self,
        samples: Sequence[int],
        captions: Sequence[str],
        negatives: Sequence[tuple[str, ...]],
        width: int,
    ) -> Float[Tensor, "b {width}"]:
        """Errors of each sample's caption, in column 0, and its negatives; unused columns repeat the caption's."""
        return torch.stack(
            [
                self._errors(sample, (caption, *others), width)
                for sample, caption, others in zip(samples, captions, negatives, strict=True)
            ]
        )

    def _errors(self, sample: int, captions: tuple[str, ...], width: int) -> Float[Tensor, "{width}"]:
        key = (sample, captions, width)
        if key not in self._known:
            self._known[key] = self._score(sample, captions, width)
        return self._known[key]

    def _score(self, sample: int, captions: tuple[str, ...], width: int) -> Tensor:
        teacher = self._teacher
        low, high = self._range
        chosen = draws(
            self._count, teacher.latent_shape, teacher.timesteps,
            seed=self._seed * 1_000_003 + sample, t_min=low, t_max=high,
        )  # fmt: skip
        latents = teacher.encode_image(self._view(self._pairs.image(sample))[None].to(teacher.device))[0]
        filled = list(captions) + [captions[0]] * (width - len(captions))
        errors = denoising_errors(
            teacher, latents, teacher.encode_captions(filled),
            chosen.timesteps.to(teacher.device), chosen.noise.to(teacher.device),
            batch_size=width * self._count, error_of=self._error_of,
        )  # fmt: skip
        return errors.mean(dim=1)
