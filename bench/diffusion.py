"""The diffusion score: choosing a caption with and without pruning; scoring in batches and singly."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import PIL.Image
import torch
from jaxtyping import Float, Int
from torch import Tensor

from bench.report import note
from bench.rounds import in_turns, timed, timed_result
from sds_clip.demo.sets import Pairs, pairs
from sds_clip.demo.world import Split
from sds_clip.models.choices import ErrorOf
from sds_clip.models.data.negatives import swap_negatives
from sds_clip.models.evaluation.checked import Problems, look_at_images
from sds_clip.models.evaluation.items import Item, open_region
from sds_clip.models.evaluation.teacher_scorer import TeacherScorer
from sds_clip.models.evaluation.winoground import winoground_benchmark
from sds_clip.models.losses.sds import NoisePredictor
from sds_clip.models.teacher.diffusion_score import check_finite, denoising_errors, draws
from sds_clip.models.teacher.pixels import teacher_preprocess
from sds_clip.models.teacher.teacher import UNCONDITIONAL, Teacher

CAPTIONS = 5
SWAPPED = 2
SEED = 3000  # differs from the seeds of the demo's training and test sets
DRAWS_SEED = 0
PRUNING_Z = (1.5, 2.0, 2.5, 3.0, 4.0)
DEFAULT_Z = 2.5


@dataclass(frozen=True)
class BestCaption:
    """The best of an image's captions, and the cost of finding it."""

    index: int
    unet_calls: int
    """Noised latents through the U-Net; comparing all n captions on all k draws takes n k."""


def best_caption(
    teacher: NoisePredictor,
    latents: Float[Tensor, "c h w"],
    captions: Float[Tensor, "n s e"],
    timesteps: Int[Tensor, " k"],
    noise: Float[Tensor, "k c h w"],
    *,
    batch_size: int,
    round_size: int = 8,
    z: float = DEFAULT_Z,
    error_of: ErrorOf,
) -> BestCaption:
    """The caption with the smallest d(x, c), with hopeless ones dropped early.

    The draws are used in rounds of `round_size`. With e_jk the excess of caption j's error over the leading
    caption's on draw k, caption j is dropped after a round if sum_k e_jk > z sqrt(sum_k e_jk^2) over all
    draws so far. If both are equally good, a round drops j with probability below exp(-z^2 / 2), for any
    number of draws, provided e is symmetric (self-normalised sums). The search ends with one caption left, or
    with the draws. An infinite `z` drops none.

    Raises TeacherError if an error is not finite.
    """
    alive = torch.arange(len(captions), device=captions.device)
    seen = torch.empty(len(captions), 0, dtype=torch.float64, device=latents.device)
    unet_calls = 0
    for levels, eps in zip(torch.split(timesteps, round_size), torch.split(noise, round_size), strict=True):
        new = denoising_errors(
            teacher, latents[None], captions[None, alive], levels[None], eps[None], batch_size=batch_size,
            error_of=error_of,
        )[0]  # fmt: skip
        check_finite(new)
        unet_calls += new.numel()
        seen = torch.cat([seen, new.double()], dim=1)
        leader = seen.mean(dim=1).argmin()
        excess = seen - seen[leader]
        kept = ~(excess.sum(dim=1) > z * excess.square().sum(dim=1).sqrt())
        alive, seen = alive[kept.to(alive.device)], seen[kept]
        if len(alive) == 1:
            break
    return BestCaption(int(alive[seen.mean(dim=1).argmin().to(alive.device)]), unet_calls)


@dataclass(frozen=True)
class ChoicePlan:
    """How captions are compared: number of draws, rounds, kind of error."""

    scenes: int
    draws: int
    round_size: int
    batch_size: int
    error_of: ErrorOf


@dataclass(frozen=True)
class Choices:
    """One way's decisions (the true caption is 0), the latents its U-Net processed, and its time."""

    decisions: list[int]
    unet_calls: int
    seconds: float

    @property
    def accuracy(self) -> float:
        return self.decisions.count(0) / len(self.decisions)

    def agreeing(self, other: Choices) -> int:
        return sum(one == two for one, two in zip(self.decisions, other.decisions, strict=True))


def five_captions(drawn: Pairs, index: int) -> list[str]:
    """A scene's caption, up to two versions with swapped words, then captions of the following scenes."""
    own = drawn.captions[index]
    found = dict.fromkeys([own, *swap_negatives(own, SWAPPED, seed=SEED, index=index)])
    others = (drawn.captions[(index + step) % len(drawn.captions)] for step in range(1, len(drawn.captions)))
    for other in others:
        if len(found) == CAPTIONS:
            break
        found.setdefault(other)
    return list(found)


def compare_choices(teacher: Teacher, plan: ChoicePlan) -> tuple[Choices, dict[float, Choices]]:
    """Let every way decide on the same scenes and draws, alternating by scene."""
    # Draw more scenes than are scored, so that five captions can always be found.
    drawn = pairs(Split.VALIDATION, SEED, 0, plan.scenes + 4 * CAPTIONS)
    chosen: dict[float, list[tuple[BestCaption, float]]] = {z: [] for z in (math.inf, *PRUNING_Z)}
    for index in (0, *range(plan.scenes)):  # the first is done twice: its first time is a warm-up
        if index % 50 == 0:
            note(f"caption choice: scene {index} of {plan.scenes}")
        choose = _chooser(teacher, plan, drawn, index)
        for z, results in chosen.items():
            results.append(choose(z))
    exhaustive, *pruned = (_sum(results[1:]) for results in chosen.values())
    return exhaustive, dict(zip(PRUNING_Z, pruned, strict=True))


def _chooser(
    teacher: Teacher, plan: ChoicePlan, drawn: Pairs, index: int
) -> Callable[[float], tuple[BestCaption, float]]:
    """A function that chooses a scene's caption, pruning at `z`; with an infinite one all draws are one round."""
    view = teacher_preprocess(teacher.resolution_px)
    latents = teacher.encode_image(view(PIL.Image.fromarray(drawn.images[index]))[None])[0]
    captions = teacher.encode_captions(five_captions(drawn, index))
    common = draws(plan.draws, teacher.latent_shape, teacher.timesteps, seed=SEED + index)
    timesteps, noise = common.timesteps.to(teacher.device), common.noise.to(teacher.device)

    def choose(z: float) -> tuple[BestCaption, float]:
        return timed_result(
            lambda: best_caption(
                teacher, latents, captions, timesteps, noise, batch_size=plan.batch_size,
                round_size=plan.draws if z == math.inf else plan.round_size, z=z, error_of=plan.error_of,
            ),
            teacher.device,
        )  # fmt: skip

    return choose


def _sum(results: list[tuple[BestCaption, float]]) -> Choices:
    best, seconds = zip(*results, strict=True)
    return Choices([one.index for one in best], sum(one.unet_calls for one in best), sum(seconds))


@dataclass(frozen=True)
class ScoringTimes:
    """Number of caption-image pairs, and each way's seconds per round."""

    pairs: int
    draws: int
    batched_s: list[float]
    naive_s: list[float]


def time_diffusion(teacher: Teacher, folder: Path, count: int, rounds: int) -> ScoringTimes:
    """Time both ways on the same items and draws. Raises AssertionError unless their scores agree."""
    items = winoground_benchmark(folder).items
    batched(teacher, items[:1], count)  # warm-up
    torch.testing.assert_close(
        batched(teacher, items, count), naive(teacher, items, count), atol=1e-5, rtol=0
    )
    runs = {
        way.__name__: partial(timed, partial(way, teacher, items, count), teacher.device)
        for way in (batched, naive)
    }
    seconds = in_turns("diffusion score", rounds, runs)
    number = sum(len(item.images) * len(item.captions) for item in items)
    return ScoringTimes(number, count, seconds["batched"], seconds["naive"])


def batched(teacher: Teacher, items: tuple[Item, ...], count: int) -> Tensor:
    """The evaluation's own scorer, including reading the files."""
    with TemporaryDirectory() as kept:
        scorer = TeacherScorer(teacher, Path(kept), count=count, seed=DRAWS_SEED, error_of="epsilon")
        problems = Problems(len(items))
        scorer.prepare(items, look_at_images(items, problems), problems)
        return torch.stack(list(scorer.scores(items)))


@torch.no_grad()
def naive(teacher: Teacher, items: tuple[Item, ...], count: int) -> Tensor:
    """d(x, no caption) - d(x, c), one noised latent and one caption at a time."""
    preprocess = teacher_preprocess(teacher.resolution_px)
    drawn = draws(count, teacher.latent_shape, teacher.timesteps, seed=DRAWS_SEED)
    scores = []
    for item in items:
        captions = teacher.encode_captions([*item.captions, UNCONDITIONAL])
        columns = []
        for region in item.images:
            latents = teacher.encode_image(preprocess(open_region(region))[None])
            errors = [
                _error(teacher, latents, caption[None], drawn.timesteps, drawn.noise) for caption in captions
            ]
            d = torch.stack(errors).double().mean(dim=1).cpu()
            columns.append(d[-1] - d[:-1])
        scores.append(torch.stack(columns, dim=1))
    return torch.stack(scores)


def _error(teacher: Teacher, latents: Tensor, caption: Tensor, timesteps: Tensor, noise: Tensor) -> Tensor:
    errors = []
    for level, eps in zip(timesteps.to(latents.device), noise.to(latents.device), strict=True):
        noisy = teacher.add_noise(latents, eps[None], level[None])
        noise_pred = teacher.noise_pred(noisy, level[None], caption)
        errors.append((noise_pred - eps).square().mean())
    return torch.stack(errors)
