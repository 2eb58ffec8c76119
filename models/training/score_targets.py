"""The teacher's denoising scores of training samples under their captions and hard negatives."""

from collections.abc import Callable, Sequence
from typing import Any

import PIL.Image
import torch
from jaxtyping import Float
from torch import Tensor

from models.data.pairs import PairSet
from models.score_error import ErrorOf
from models.teacher.diffusion_score import check_finite, denoising_errors, draws
from models.teacher.teacher import Teacher

MAX_KNOWN = 2**18
"""How many scored samples to keep, at about 1 KiB each. Once full, no more are added and none is dropped."""


class ScoreTargets:
    """d(x, c) of a sample's captions, each computed once as long as there is room to keep it.

    The noise belongs to the sample and not to the step, so what was scored in one epoch holds in the next.
    Each sample is scored alone and in one shape, so its values do not depend on which others were known
    already.
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
        error_of: ErrorOf,
        known: dict[Any, Tensor] | None = None,
    ) -> None:
        """`view` makes the VAE's input of an image. Runs of one teacher, data and seed may share `known`."""
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
        """Return the errors of each sample's caption, in column 0, and its negatives.

        Unused columns repeat the caption's error.

        Raises:
            TeacherError: an error is not finite.
        """
        keys = [
            (sample, (caption, *others), width)
            for sample, caption, others in zip(samples, captions, negatives, strict=True)
        ]
        found = {key: self._known[key] for key in keys if key in self._known}
        missing = [key for key in dict.fromkeys(keys) if key not in found]
        if missing:
            # One transfer to the CPU for all of them, since each waits for the device.
            scored = torch.stack([self._score(*key) for key in missing]).cpu()
            check_finite(scored)
            found |= zip(missing, scored, strict=True)
            for key in missing[: max(0, MAX_KNOWN - len(self._known))]:
                self._known[key] = found[key]
        return torch.stack([found[key] for key in keys]).to(self._teacher.device)

    def _score(self, sample: int, captions: tuple[str, ...], width: int) -> Float[Tensor, "{width}"]:
        teacher = self._teacher
        low, high = self._range
        chosen = draws(
            self._count, teacher.latent_shape, teacher.timesteps,
            # Differs for every pair of seed and sample, up to a million samples.
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
