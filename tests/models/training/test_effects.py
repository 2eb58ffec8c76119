"""Each option has its effect on the first step of a run, by formulas of their own or by runs that differ in it."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler
from torch import Tensor

from sds_clip.models.data.pairs import PairSet, Sample, Subset
from sds_clip.models.mapper import Mapper
from sds_clip.models.training.parts import Parts, WithNegatives
from tests.models.training.test_gradients import Step, first_gradients

SWAPS: dict[str, object] = {"objective": "clip", "negatives": "swap", "trainable": "all"}


def first_step(out: Path, parts: Parts, **options: object) -> tuple[dict[str, Tensor], dict[str, float]]:
    """The gradients of a run's first step, and what it logs."""
    found = first_gradients(out, parts, **{"seed": 5, **options})
    (record,) = (json.loads(line) for line in (out / "log.jsonl").read_text().splitlines())
    return found, record


class FirstOfEach(Subset):
    """Pairs with so many of their negatives."""

    def __init__(self, pairs: PairSet, count: int) -> None:
        super().__init__(pairs, range(len(pairs)))
        self._count = count

    def sample(self, index: int) -> Sample:
        sample = super().sample(index)
        return replace(sample, negatives=tuple(texts[: self._count] for texts in sample.negatives))


@pytest.mark.parametrize(
    "options",
    [
        {"weighting": "one-minus-abar"},
        {"weighting": "min-snr", "min_snr_gamma": 0.7},
        {"mapper_input": "raw"},
    ],
)
def test_weights_of_timesteps_and_the_mapper_s_input_are_those_of_the_run(
    options: dict[str, object], parts: Parts, teacher_folder: Path, tmp_path: Path
) -> None:
    found, record = first_step(tmp_path, parts, trainable="all", **options)

    assert parts.teacher is not None
    step = Step(parts, 5)
    scheduler = DDIMScheduler.from_pretrained(teacher_folder, subfolder="scheduler")
    abar = scheduler.alphas_cumprod[step.timesteps]
    snr = abar / (1 - abar)
    weights = {"one-minus-abar": 1 - abar, "min-snr": snr.clamp(max=0.7) / snr}.get(
        str(options.get("weighting")), torch.ones(8)
    )
    if "weighting" in options:
        assert weights.std() > 0.1
    features = step.image
    if "mapper_input" in options:
        features = step.network.encode_image(step.pixels, normalize=False)
    mapper = Mapper(32, (4, 8, 8), seed=5)
    noisy = scheduler.add_noise(mapper.linear(features).view(8, 4, 8, 8), step.noise, step.timesteps)
    output = parts.teacher.denoiser(noisy, step.timesteps, parts.teacher.encode_captions(step.texts)).sample
    loss = (weights * (output - step.noise).square().mean(dim=(1, 2, 3))).mean()
    loss.backward()
    assert record["sds"] == pytest.approx(loss.item(), rel=1e-4)
    for name, value in mapper.named_parameters():
        torch.testing.assert_close(found[f"mapper.{name}"], value.grad, rtol=1e-3, atol=1e-6)


def test_what_conflicts_of_the_teacher_s_gradient_is_projected_away(parts: Parts, tmp_path: Path) -> None:
    """A tower's gradient is linear in that of its features, so three runs tell what the projection took away."""
    run: dict[str, object] = {"trainable": "all", "seed": 4, "sds_weight": 20.0}
    kept, log = first_step(tmp_path / "keep", parts, **run)
    projected, _ = first_step(tmp_path / "project", parts, **run, conflicts="project")
    contrast, _ = first_step(tmp_path / "clip", parts, **run, objective="clip")
    assert log["teacher_gradient_cosine"] < -0.01
    along = log["teacher_gradient_cosine"] * log["teacher_gradient_share"]
    for name, value in kept.items():
        taken = along * contrast[name] if name.startswith("student.visual.") else 0.0
        torch.testing.assert_close(projected[name], value - taken, rtol=1e-3, atol=1e-6)


def test_negatives_weight_multiplies_the_loss_on_the_negatives(parts: Parts, tmp_path: Path) -> None:
    _, log = first_step(tmp_path, parts, **SWAPS, negatives_weight=3.0)
    assert log["loss"] == pytest.approx(log["clip"] + 3 * log["negatives"], rel=1e-4)


def test_a_sample_s_negatives_beyond_the_count_are_left_out(parts: Parts, tmp_path: Path) -> None:
    many = WithNegatives(parts.pairs, 3, 0)
    assert max(len(many.sample(index).negatives[0]) for index in range(len(many))) > 1
    own = {**SWAPS, "negatives": "data", "negatives_count": 1}
    found, _ = first_step(tmp_path / "many", replace(parts, pairs=many), **own)
    expected, _ = first_step(tmp_path / "one", replace(parts, pairs=FirstOfEach(many, 1)), **own)
    for name, value in found.items():
        torch.testing.assert_close(value, expected[name], rtol=0, atol=0)


@pytest.mark.parametrize("objective", ["clip", "sds-clip"])
def test_candidates_that_may_be_right_are_no_negatives_of_other_objectives(
    objective: str, parts: Parts, tmp_path: Path
) -> None:
    """So the configuration of a run by the teacher's choice also serves its control."""
    tagged = replace(parts, pairs=WithNegatives(parts.pairs, 3, 0))
    reused: dict[str, Any] = {"negatives": "data", "score_candidates": "negatives", "negatives_count": 3}
    found, log = first_step(tmp_path / "reused", tagged, objective=objective, trainable="all", **reused)
    expected, _ = first_step(tmp_path / "plain", tagged, objective=objective, trainable="all")
    assert "negatives" not in log
    for name, value in found.items():
        torch.testing.assert_close(value, expected[name], rtol=0, atol=0)


def test_targets_and_chance_are_means_over_the_samples_with_a_choice(parts: Parts, tmp_path: Path) -> None:
    """Of 8 samples, 3 have two negatives, 2 have one, and 3 have none."""
    counts = dict(zip(Step(parts, 5).indices, (2, 0, 1, 2, 0, 1, 2, 0), strict=True))

    class Uneven(Subset):
        def sample(self, index: int) -> Sample:
            sample = super().sample(index)
            texts = tuple(f"a red dog {number}" for number in range(counts.get(index, 0)))
            return replace(sample, negatives=(texts,) * len(sample.captions))

    def equal(_: Sequence[int], candidates: Sequence[tuple[str, ...]], width: int) -> Tensor:
        return torch.zeros(len(candidates), width)

    uneven = replace(parts, pairs=Uneven(parts.pairs, range(len(parts.pairs))), targets=equal)
    _, log = first_step(tmp_path, uneven, objective="score", negatives="data", negatives_count=2)
    chance = (3 * 1 / 3 + 2 * 1 / 2) / 5
    assert log["target_chance"] == pytest.approx(chance)
    assert log["target_own"] == pytest.approx(chance)
