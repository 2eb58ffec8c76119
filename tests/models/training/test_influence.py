"""Whether a run with L_SDS says at its end that the teacher had no say in it."""

import json
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from sds_clip.demo.arms import SDS
from sds_clip.demo.training_set import DemoPairs
from sds_clip.models.checkpoints.load import load_clip
from sds_clip.models.teacher.load import load_teacher
from sds_clip.models.teacher.teacher import Teacher
from sds_clip.models.training.influence import teacher_had_no_say
from sds_clip.models.training.parts import Parts
from sds_clip.models.training.run import train
from sds_clip.models.training.watcher import Record
from tests.training import PLACE, configure


def logged(shares: list[float], gaps: list[float] | None = None) -> list[Record]:
    """Records with these gradient shares and, over a residual of 1, these gaps; among lines without any."""
    lines: list[Record] = [{"step": 0, "validation_clip": 1.0}]
    for number, share in enumerate(shares):
        line = {"step": number + 1, "teacher_gradient_share": share}
        lines.append(
            line if gaps is None else line | {"residual": 1.0, "residual_shuffled": 1 + gaps[number]}
        )
    return lines


@pytest.mark.parametrize(
    ("shares", "gaps", "had_none"),
    [
        ([0.5] * 4, [0.3] * 4, False),
        ([0.5] * 4, None, False),  # one sample a process: no other caption
        ([0.049] * 4, [0.3] * 4, True),
        ([0.0, 0.0, 0.06, 0.06], [0.3] * 4, False),  # the mapper's warm-up is in the first half
        ([0.9, 0.9, 0.04, 0.04], [0.3] * 4, True),
        ([0.5] * 4, [0.0] * 4, True),  # no caption changes the residual
        ([0.5] * 4, [0.009] * 4, True),
        ([0.5] * 4, [-0.3] * 4, True),
        # Of 0.0, 0.1 and 0.2 the mean 0.1 is under twice its standard error 0.0577; of 0.1, 0.2 and 0.3 it is not.
        ([0.5] * 6, [0.3, 0.3, 0.3, 0.0, 0.1, 0.2], True),
        ([0.5] * 6, [0.0, 0.0, 0.0, 0.1, 0.2, 0.3], False),
        ([0.5], [0.3], False),
        ([], None, False),
    ],
)
def test_the_second_half_of_the_log_decides(
    shares: list[float], gaps: list[float] | None, had_none: bool
) -> None:
    warning = teacher_had_no_say(logged(shares, gaps))
    assert (warning is not None) is had_none
    assert warning is None or warning.code == "teacher_had_no_say"


def test_figures_are_means_over_the_second_half() -> None:
    warning = teacher_had_no_say(logged([1.0, 1.0, 0.01, 0.03], [1.0, 1.0, 0.2, 0.4]))
    assert warning is not None
    assert warning.figures == pytest.approx({"teacher_gradient_share": 0.02, "residual_gap": 0.3})


def deaf(teacher: Teacher) -> Teacher:
    """A placebo: the same teacher, whose denoiser adds nothing of a caption."""
    denoiser = deepcopy(teacher.denoiser)
    silenced = 0
    with torch.no_grad():
        for name, parameter in denoiser.named_parameters():
            if ".attn2.to_out." in name:
                parameter.zero_()
                silenced += 1
    assert silenced
    return replace(teacher, denoiser=denoiser)


def test_a_teacher_that_no_caption_reaches_had_no_say_whatever_its_weight(
    parts: Parts, tmp_path: Path
) -> None:
    assert parts.teacher is not None
    placebo = replace(parts, teacher=deaf(parts.teacher))
    result = train(configure(sds_weight=1e4, log_every=1), placebo, tmp_path / "out", PLACE)
    [warning] = result.warnings
    assert warning.figures["residual_gap"] == pytest.approx(0, abs=1e-6)
    assert warning.figures["teacher_gradient_share"] > 0.05


def test_a_weight_that_is_next_to_nothing_gives_no_say(parts: Parts, tmp_path: Path) -> None:
    result = train(configure(sds_weight=1e-6, log_every=1), parts, tmp_path / "out", PLACE)
    [warning] = result.warnings
    lines = [json.loads(line) for line in (tmp_path / "out/log.jsonl").read_text().splitlines()]
    shares = [line["teacher_gradient_share"] for line in lines]
    assert warning.figures["teacher_gradient_share"] == pytest.approx(sum(shares[2:]) / 2)
    assert warning.figures["teacher_gradient_share"] < 0.05


def test_a_run_without_l_sds_says_nothing_of_it(parts: Parts, tmp_path: Path) -> None:
    config = configure(objective="clip", teacher=None)
    assert train(config, replace(parts, teacher=None), tmp_path / "out", PLACE).warnings == ()


def test_a_teacher_that_knows_the_captions_had_a_say(tmp_path: Path) -> None:
    """The demo's, from a ridge start at high noise, as the demonstration runs it."""
    demo = Parts(
        load_clip("demo", device="cpu", precision="float32"),
        DemoPairs(256),
        load_teacher("demo", device="cpu", precision="float32", vae=True),
    )
    options = {"base": "demo", "teacher": "demo", "batch_size": 32, "log_every": 1, "ridge_images": 256}
    config = configure(**SDS | options)
    assert train(config, demo, tmp_path / "out", PLACE).warnings == ()


@pytest.mark.parametrize(
    ("name", "targets", "had_none"),
    [
        ("target_own", [0.9, 0.9], False),
        ("target_own", [0.9, 0.26], False),
        ("target_own", [0.9, 0.25], True),
        ("target_own", [0.1, 0.1], True),  # it takes wrong captions for right
        ("target_best", [0.4, 0.4], False),
        ("target_best", [0.25, 0.25], True),
    ],
)
def test_a_choice_that_is_no_better_than_chance_is_told(
    name: str, targets: list[float], had_none: bool
) -> None:
    records = [{"step": step, name: target, "target_chance": 0.25} for step, target in enumerate(targets)]
    warning = teacher_had_no_say([{"step": 0, "validation_clip": 1.0}, *records])
    assert (warning is not None) == had_none
    if warning:
        assert name in warning.message
        assert warning.figures == {name: targets[-1], "target_chance": 0.25}
