"""What the variants of a run have in common, and what they do not."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from sds_clip.models.checkpoints.load import load_clip
from sds_clip.models.teacher.load import load_teacher
from sds_clip.models.training.distillation.teacher_loss import timestep_range
from sds_clip.models.training.latents import Latents
from sds_clip.models.training.parts import Parts
from sds_clip.models.training.run import train
from sds_clip.models.training.score_targets import ShuffledScores, TeacherScores
from tests.training import PLACE, changed, configure, gradients, last_checkpoint


def delta_bytes(parts: Parts, out: Path, **options: object) -> bytes:
    train(configure(**options), parts, out, PLACE)
    return (out / "delta" / "delta.safetensors").read_bytes()


def test_lambda_zero_is_the_control(parts: Parts, tmp_path: Path) -> None:
    zero = delta_bytes(parts, tmp_path / "zero", sds_weight=0.0)
    assert zero == delta_bytes(parts, tmp_path / "control", objective="clip")
    assert zero != delta_bytes(parts, tmp_path / "one", sds_weight=1.0)


def test_during_the_mapper_s_warm_up_the_student_is_the_control_s(parts: Parts, tmp_path: Path) -> None:
    warm = delta_bytes(parts, tmp_path / "warm", steps=2, mapper_warmup_steps=2)
    assert warm == delta_bytes(parts, tmp_path / "control", steps=2, objective="clip")


def certain(samples: Sequence[int], _candidates: object, width: int) -> Tensor:
    """Scores of a teacher that always takes the first candidate."""
    return torch.tensor([[0.0] + [1.0] * (width - 1)] * len(samples))


def test_score_distillation_from_a_certain_teacher_is_its_control(parts: Parts, tmp_path: Path) -> None:
    """The two differ in the target alone, so they meet where the teacher's is the true caption."""
    shared: dict[str, object] = {"negatives": "swap", "trainable": "all", "sds_batch_size": 4}
    train(configure(objective="clip", **shared), parts, tmp_path / "control", PLACE)
    train(configure(objective="score", **shared), replace(parts, targets=certain), tmp_path / "score", PLACE)
    control, score = changed(tmp_path / "control"), changed(tmp_path / "score")
    assert control.keys() == score.keys()
    for name, value in score.items():
        torch.testing.assert_close(value, control[name], rtol=0, atol=2e-5)


def test_score_distillation_from_an_unsure_teacher_is_not(parts: Parts, tmp_path: Path) -> None:
    shared: dict[str, object] = {"negatives": "swap", "steps": 2, "score_draws": 2}
    control = delta_bytes(parts, tmp_path / "control", objective="clip", **shared)
    assert control != delta_bytes(parts, tmp_path / "score", objective="score", **shared)


def test_hard_labels_of_a_certain_teacher_are_its_soft_ones(parts: Parts, tmp_path: Path) -> None:
    shared: dict[str, object] = {"objective": "score", "negatives": "swap", "steps": 2}
    known = replace(parts, targets=certain)
    soft, hard = (
        delta_bytes(known, tmp_path / labels, score_labels=labels, score_temperature=0.01, **shared)
        for labels in ("soft", "hard")
    )
    assert soft == hard
    unsure = delta_bytes(known, tmp_path / "unsure", score_labels="hard", score_temperature=10.0, **shared)
    assert unsure == hard


def test_the_base_s_own_choice_needs_no_teacher_and_gives_the_base_no_gradient(
    parts: Parts, tmp_path: Path
) -> None:
    """All of the loss's gradient is L_CLIP's in the first step, since the student is still the base."""
    shared: dict[str, object] = {"steps": 1, "teacher": None, "max_gradient_norm": 1e9}
    own = configure(objective="score", negatives="swap", score_by="base", **shared)
    train(own, replace(parts, teacher=None), tmp_path / "own", PLACE)
    train(configure(objective="clip", **shared), parts, tmp_path / "clip", PLACE)
    found, expected = (gradients(last_checkpoint(tmp_path / name)) for name in ("own", "clip"))
    assert found.keys() == expected.keys()
    for name, value in found.items():
        torch.testing.assert_close(value, expected[name], rtol=1e-3, atol=1e-6)


def test_scores_known_already_change_nothing(parts: Parts, tmp_path: Path) -> None:
    options: dict[str, object] = {"objective": "score", "negatives": "swap", "steps": 2, "score_draws": 2}
    fresh = delta_bytes(parts, tmp_path / "fresh", **options)
    assert parts.teacher is not None
    latents = Latents(parts.base, parts.teacher, parts.pairs)
    targets = TeacherScores(configure(**options), parts.teacher, latents)
    asked: list[int] = []

    def known(samples: Sequence[int], *others: Any) -> Tensor:
        asked.extend(samples)
        return targets(samples, *others)

    assert delta_bytes(replace(parts, targets=known), tmp_path / "known", **options) == fresh
    assert len(asked) == 16


def test_a_run_with_shuffled_scores_differs_from_the_teacher_s_in_them_alone(
    parts: Parts, tmp_path: Path
) -> None:
    options: dict[str, object] = {"objective": "score", "negatives": "swap", "steps": 2, "score_draws": 2}
    shuffled = delta_bytes(parts, tmp_path / "shuffled", score_by="shuffled", **options)
    assert shuffled != delta_bytes(parts, tmp_path / "teacher", **options)
    assert parts.teacher is not None
    latents = Latents(parts.base, parts.teacher, parts.pairs)
    known = replace(parts, targets=ShuffledScores(configure(**options), parts.teacher, latents))
    assert shuffled == delta_bytes(known, tmp_path / "known", **options)


def test_timesteps_stay_within_their_shares_of_the_schedule() -> None:
    config = configure(t_min=0.1, t_max=0.9)
    assert [timestep_range(config, 1000, step, 11) for step in (0, 10)] == [(100, 899)] * 2


def test_annealing_ends_in_the_middle_of_the_range() -> None:
    config = configure(t_min=0.1, t_max=0.9, t_schedule="annealed")
    assert [timestep_range(config, 1001, step, 11) for step in (0, 5, 10)] == [
        (100, 900),
        (100, 700),
        (100, 500),
    ]


@pytest.mark.parametrize("gradient", ["full", "sds"])
def test_sds_reaches_the_student(gradient: str, parts: Parts, tmp_path: Path) -> None:
    control = delta_bytes(parts, tmp_path / "control", objective="clip", steps=2)
    assert control != delta_bytes(parts, tmp_path / "sds", steps=2, gradient=gradient)


@pytest.mark.parametrize("objective", ["condition", "noise-contrast"])
def test_the_condition_reaches_the_student_and_needs_no_caption(
    objective: str, parts: Parts, tmp_path: Path
) -> None:
    control = delta_bytes(parts, tmp_path / "control", objective="clip", steps=2)
    assert control != delta_bytes(parts, tmp_path / "own", objective=objective, steps=2)
    assert control == delta_bytes(
        parts, tmp_path / "warm-up", objective=objective, steps=2, mapper_warmup_steps=2
    )
    records = [json.loads(line) for line in (tmp_path / "own" / "log.jsonl").read_text().splitlines()]
    name = objective.replace("-", "_")
    assert {name, "residual", "residual_shuffled", "teacher_gradient_cosine"} <= records[-1].keys()


@pytest.mark.parametrize("options", [{"objective": "clip"}, {"objective": "score", "score_draws": 2}])
def test_a_text_map_is_folded_into_the_text_projection(
    options: dict[str, object], parts: Parts, tmp_path: Path
) -> None:
    config = configure(trainable="text-map", negatives="swap", steps=3, lr=0.01, **options)
    train(config, parts, tmp_path / "out", PLACE)
    assert changed(tmp_path / "out").keys() == {"text_projection"}
    matrix = last_checkpoint(tmp_path / "out")["student.text_map.matrix"]
    tuned = load_clip(f"local-dir:{tmp_path / 'out' / 'delta'}", device="cpu", precision="float32")
    pixels = torch.stack([parts.base.preprocess(parts.pairs.image(index)) for index in range(4)])
    assert torch.equal(tuned.encode_image(pixels), parts.base.encode_image(pixels))
    tokens = parts.base.tokenizer([parts.pairs.sample(index).captions[0] for index in range(4)])
    before = parts.base.encode_text(tokens, normalize=False)
    torch.testing.assert_close(
        tuned.encode_text(tokens, normalize=False), before @ matrix, rtol=1e-4, atol=1e-6
    )
    assert not torch.allclose(matrix, torch.eye(32), atol=1e-3)


def test_activation_checkpointing_changes_nothing(parts: Parts, teacher_folder: Path, tmp_path: Path) -> None:
    teacher = load_teacher(str(teacher_folder), device="cpu", precision="float32")
    teacher.enable_activation_checkpointing()
    saving = delta_bytes(Parts(parts.base, parts.pairs, teacher), tmp_path / "saving")
    assert saving == delta_bytes(parts, tmp_path / "plain")
