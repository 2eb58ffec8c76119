"""Scoring by a teacher: in batches, as the evaluation does it, and by one U-Net call a pair and draw."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor

from bench.measure import note
from bench.step_time import timed
from models.evaluation.checked import Problems, look_at_images
from models.evaluation.items import Item, open_region
from models.evaluation.teacher_scorer import TeacherScorer
from models.evaluation.winoground import winoground_benchmark
from models.teacher.diffusion_score import draws
from models.teacher.pixels import teacher_preprocess
from models.teacher.teacher import UNCONDITIONAL, Teacher

SEED = 0


@dataclass
class Pairs:
    """Pairs of caption and image, and the seconds of either way by round."""

    pairs: int
    draws: int
    batched_s: list[float] = field(default_factory=list)
    naive_s: list[float] = field(default_factory=list)


def time_diffusion(teacher: Teacher, folder: Path, count: int, rounds: int) -> Pairs:
    """Both ways on the same items and draws; raises AssertionError unless they score alike."""
    items = winoground_benchmark(folder).items
    found = Pairs(sum(len(item.images) * len(item.captions) for item in items), count)
    batched(teacher, items[:1], count)  # to warm up
    torch.testing.assert_close(
        batched(teacher, items, count), naive(teacher, items, count), atol=1e-5, rtol=0
    )
    for number in range(rounds):
        note(f"diffusion score: round {number + 1} of {rounds}")
        found.batched_s.append(timed(lambda: batched(teacher, items, count), teacher.device))
        found.naive_s.append(timed(lambda: naive(teacher, items, count), teacher.device))
    return found


def batched(teacher: Teacher, items: tuple[Item, ...], count: int) -> Tensor:
    """The evaluation's scorer, from the files on."""
    with TemporaryDirectory() as kept:
        scorer = TeacherScorer(teacher, Path(kept), count=count, seed=SEED, error_of="epsilon")
        problems = Problems(len(items))
        scorer.prepare(items, look_at_images(items, problems), problems)
        return torch.stack(list(scorer.scores(items)))


@torch.no_grad()
def naive(teacher: Teacher, items: tuple[Item, ...], count: int) -> Tensor:
    """d(x, no caption) - d(x, c), one noised latent under one caption at a time."""
    preprocess = teacher_preprocess(teacher.resolution_px)
    drawn = draws(count, teacher.latent_shape, teacher.timesteps, seed=SEED)
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
    """One caption's squared error on each draw."""
    errors = []
    for level, eps in zip(timesteps.to(latents.device), noise.to(latents.device), strict=True):
        noisy = teacher.add_noise(latents, eps[None], level[None])
        noise_pred = teacher.noise_pred(noisy, level[None], caption)
        errors.append((noise_pred - eps).square().mean())
    return torch.stack(errors)
