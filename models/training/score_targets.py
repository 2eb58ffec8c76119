"""Scores of training samples under candidate captions, which the objective `score` distils."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from sds_clip.models.clip.model import Clip
from sds_clip.models.data.pairs import PairSet
from sds_clip.models.teacher.diffusion_score import check_finite, denoising_errors, draws
from sds_clip.models.teacher.teacher import Teacher
from sds_clip.models.training.config import FinetuneConfig
from sds_clip.models.training.latents import Latents

Targets = Callable[[Sequence[int], Sequence[tuple[str, ...]], int], Tensor]
"""Returns the errors of samples under candidate captions, as `ScoreTargets` does."""

MAX_KNOWN = 2**18
"""How many scored samples to keep, at about 1 KiB each. Once full, no more are added and none is dropped."""


def candidates_of(config: FinetuneConfig, caption: str, negatives: tuple[str, ...]) -> tuple[str, ...]:
    """Return the captions among which a sample's choice is; a sample without negatives has one, and so no choice."""
    return (caption, *negatives) if config.score_candidates == "all" else negatives or (caption,)


class ScoreTargets(ABC):
    """d(x, c) of a sample's candidate captions, each computed once as long as there is room to keep it.

    Each sample is scored alone and in one shape, so its values do not depend on which others were known already.
    """

    def __init__(self, config: FinetuneConfig, device: torch.device) -> None:
        self._config, self._device = config, device
        self._known: dict[tuple[int, tuple[str, ...]], Tensor] = {}

    def __call__(
        self, samples: Sequence[int], candidates: Sequence[tuple[str, ...]], width: int
    ) -> Float[Tensor, "b {width}"]:
        """Return the errors of each sample's candidates, at least one and at most `width` of them.

        Unused columns repeat the first candidate's error. One candidate is no choice: its error is 0, and not computed.

        Raises:
            TeacherError: an error is not finite.
        """
        keys = [
            (sample, captions + captions[:1] * (width - len(captions)))
            for sample, captions in zip(samples, candidates, strict=True)
        ]
        alone = {key: torch.zeros(width) for key in keys if len(set(key[1])) == 1}
        found = alone | {key: self._known[key] for key in keys if key in self._known}
        missing = [key for key in dict.fromkeys(keys) if key not in found]
        if missing:
            # One transfer to the CPU for all of them, since each waits for the device.
            scored = torch.stack([self.score(*key) for key in missing]).cpu()
            check_finite(scored)
            found |= zip(missing, scored, strict=True)
            for key in missing[: max(0, MAX_KNOWN - len(self._known))]:
                self._known[key] = found[key]
        return torch.stack([found[key] for key in keys]).to(self._device)

    @abstractmethod
    def score(self, sample: int, captions: tuple[str, ...]) -> Float[Tensor, "n"]:
        """Return d(x, c) of one sample's image under each caption; the lower, the better they match."""


class TeacherScores(ScoreTargets):
    """The teacher's denoising errors.

    The noise belongs to the sample and not to the step, so what was scored in one epoch holds in the next.
    """

    def __init__(self, config: FinetuneConfig, teacher: Teacher, latents: Latents) -> None:
        super().__init__(config, teacher.device)
        self._teacher, self._latents = teacher, latents

    def score(self, sample: int, captions: tuple[str, ...]) -> Float[Tensor, "n"]:
        config, teacher = self._config, self._teacher
        chosen = draws(
            config.score_draws, teacher.latent_shape, teacher.timesteps,
            seed=self._seed(sample), t_min=config.score_t_min, t_max=config.score_t_max,
        )  # fmt: skip
        errors = denoising_errors(
            teacher, self._latents.encode(sample)[None], teacher.encode_captions(list(captions))[None],
            chosen.timesteps[None], chosen.noise[None],
            batch_size=len(captions) * config.score_draws, error_of=config.score_error,
        )  # fmt: skip
        return errors[0].mean(dim=1)

    def _seed(self, sample: int) -> int:
        """Differs for every pair of seed and sample, up to a million samples."""
        return self._config.negatives_seed * 1_000_003 + sample


class ShuffledScores(TeacherScores):
    """The teacher's errors in random order: each caption has the error of any of its sample's captions.

    An order in which no caption keeps its own error would tell which one the teacher does not choose.
    """

    def score(self, sample: int, captions: tuple[str, ...]) -> Float[Tensor, "n"]:
        distinct = list(dict.fromkeys(captions))  # unused columns repeat the first
        order = torch.randperm(len(distinct), generator=torch.Generator().manual_seed(self._seed(sample)))
        given = [captions.index(distinct[int(order[distinct.index(caption)])]) for caption in captions]
        return super().score(sample, captions)[given]


class BaseScores(ScoreTargets):
    """The base's own choice: errors whose softmax at `score_temperature` is that of its logits."""

    def __init__(self, config: FinetuneConfig, base: Clip, pairs: PairSet) -> None:
        super().__init__(config, base.device)
        self._base, self._pairs = base, pairs

    def score(self, sample: int, captions: tuple[str, ...]) -> Float[Tensor, "n"]:
        base = self._base
        image = base.encode_image(base.preprocess(self._pairs.image(sample))[None])
        texts = base.encode_text(base.tokenizer(list(captions)))
        return -self._config.score_temperature * base.logit_scale * (texts @ image[0])
