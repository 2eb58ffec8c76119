"""The teacher's denoising scores of training samples under their captions and hard negatives."""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from models.teacher.diffusion_score import check_finite, denoising_errors, draws
from models.teacher.teacher import Teacher
from models.training.config import FinetuneConfig
from models.training.latents import Latents

Targets = Callable[[Sequence[int], Sequence[str], Sequence[tuple[str, ...]], int], Tensor]
"""Returns the teacher's errors of samples, as `ScoreTargets` does."""

MAX_KNOWN = 2**18
"""How many scored samples to keep, at about 1 KiB each. Once full, no more are added and none is dropped."""


class ScoreTargets:
    """d(x, c) of a sample's captions, each computed once as long as there is room to keep it.

    The noise belongs to the sample and not to the step, so what was scored in one epoch holds in the next.
    Each sample is scored alone and in one shape, so its values do not depend on which others were known
    already.
    """

    def __init__(self, config: FinetuneConfig, teacher: Teacher, latents: Latents) -> None:
        self._config, self._teacher, self._latents = config, teacher, latents
        self._known: dict[tuple[int, tuple[str, ...], int], Tensor] = {}

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
        config, teacher = self._config, self._teacher
        chosen = draws(
            config.score_draws, teacher.latent_shape, teacher.timesteps,
            # Differs for every pair of seed and sample, up to a million samples.
            seed=config.negatives_seed * 1_000_003 + sample, t_min=config.score_t_min, t_max=config.score_t_max,
        )  # fmt: skip
        latents = self._latents.encode(sample)
        filled = list(captions) + [captions[0]] * (width - len(captions))
        errors = denoising_errors(
            teacher, latents, teacher.encode_captions(filled),
            chosen.timesteps.to(teacher.device), chosen.noise.to(teacher.device),
            batch_size=width * config.score_draws, error_of=config.score_error,
        )  # fmt: skip
        return errors.mean(dim=1)
