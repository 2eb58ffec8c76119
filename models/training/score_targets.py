"""Scores of training samples under candidate captions, which the objective `score` distils."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from sds_clip.models.clip.model import Clip
from sds_clip.models.data.pairs import PairSet
from sds_clip.models.errors import DataError
from sds_clip.models.files import numbered_lines
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


class LabelScores(ScoreTargets):
    """The choices of a file, by whatever labeller: errors whose softmax at `score_temperature` is its probabilities."""

    def __init__(self, config: FinetuneConfig, pairs: PairSet, device: torch.device) -> None:
        """Raises DataError, which names the sample and the line, unless each choice has a label that fits it."""
        super().__init__(config, device)
        assert config.labels is not None
        lines: dict[tuple[str, str], tuple[int, dict[str, Any]]] = {}
        for number, line in numbered_lines(config.labels, DataError, _LABEL):
            name, caption = str(line.get("image")), str(line.get("caption"))
            earlier, _ = lines.setdefault((name, caption), (number, line))
            if earlier != number:
                where = f"{config.labels}, line {number}"
                raise DataError(f"{where}: {name} has a label for {caption!r} on line {earlier}, too.")
        self._labels: dict[tuple[int, tuple[str, ...]], Tensor] = {}
        for index in range(len(pairs)):
            sample = pairs.sample(index)
            for caption, negatives in zip(sample.captions, sample.negatives, strict=False):
                candidates = candidates_of(config, caption, negatives[: config.negatives_count])
                distinct = tuple(dict.fromkeys(candidates))
                if len(distinct) == 1:
                    continue
                if (sample.name, caption) not in lines:
                    raise DataError(f"{config.labels} has no line for {sample.place} and {caption!r}.")
                number, line = lines[sample.name, caption]
                where = f"{config.labels}, line {number}, {sample.place}"
                self._labels[index, distinct] = _probabilities(line, distinct, where)

    def score(self, sample: int, captions: tuple[str, ...]) -> Float[Tensor, "n"]:
        distinct = tuple(dict.fromkeys(captions))
        p = self._labels[sample, distinct].clamp_min(torch.finfo(torch.float32).tiny)
        return -self._config.score_temperature * p.log()[[distinct.index(caption) for caption in captions]]


_LABEL = 'an object with "image", "caption", and "right" or "probabilities"'


def _probabilities(line: dict[str, Any], candidates: tuple[str, ...], where: str) -> Float[Tensor, "n"]:
    """Return what a line gives each candidate. Raises DataError unless these are probabilities of all of them."""
    given = line.get("probabilities")
    if ("right" in line) == ("probabilities" in line) or not isinstance(given, dict | None):
        raise DataError(f"{where}: the line must be {_LABEL}.")
    given = {str(line["right"]): 1} if given is None else given
    if unknown := [text for text in given if text not in candidates]:
        raise DataError(f"{where}: {unknown[0]!r} is none of the candidates {candidates}.")
    if "right" not in line and (missing := [text for text in candidates if text not in given]):
        raise DataError(f"{where}: the candidate {missing[0]!r} has no probability.")
    found = [given.get(text, 0) for text in candidates]
    are_shares = all(type(value) in (int, float) and 0 <= value <= 1 for value in found)
    if not are_shares or abs(sum(found) - 1) > 1e-3:
        raise DataError(f"{where}: the probabilities must be from 0 to 1, and their sum 1.")
    probabilities = torch.tensor(found, dtype=torch.float32)
    return probabilities / probabilities.sum()
