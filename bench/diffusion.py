"""The diffusion score, in batches and singly."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor

from bench.rounds import in_turns, timed
from sds_clip.models.evaluation.image_check import Problems, look_at_images
from sds_clip.models.evaluation.items import Item, open_region
from sds_clip.models.evaluation.teacher_scorer import TeacherScorer
from sds_clip.models.evaluation.winoground import winoground_benchmark
from sds_clip.models.teacher.diffusion_score import draws
from sds_clip.models.teacher.pixels import teacher_preprocess
from sds_clip.models.teacher.teacher import UNCONDITIONAL, Teacher

DRAWS_SEED = 0


@dataclass(frozen=True)
class ScoringTimes:
    """Number of caption-image pairs, and each way's seconds per round."""

    pairs: int
    draws: int
    batched_s: list[float]
    naive_s: list[float]


def time_diffusion(
    teacher: Teacher, folder: Path, count: int, rounds: int, *, atol: float = 1e-5
) -> ScoringTimes:
    """Time both ways on the same items and draws. Raises AssertionError unless their scores agree to `atol`."""
    items = winoground_benchmark(folder).items
    batched(teacher, items[:1], count)  # warm-up
    torch.testing.assert_close(
        batched(teacher, items, count), naive(teacher, items, count), atol=atol, rtol=0
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
