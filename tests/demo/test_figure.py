from pathlib import Path

import numpy as np
import pytest

from demo.experiment import Outcome
from demo.figure import curve, draw, relative_gap, running_mean, write_figure
from demo.measure import StudentScores
from demo.winoground_sets import KINDS

Log = list[dict[str, float]]


def outcome(variant: str, seed: int, log: Log, *, share: float = 0.5, trainable: str = "all") -> Outcome:
    right = (np.random.default_rng(seed).random(450) < share).tolist()
    margins = [value - 0.5 for value in right]
    kinds = [kind for kind in KINDS for _ in range(150)]
    return Outcome(
        variant,
        trainable,
        seed,
        "heldout",
        1.0,
        {},
        StudentScores(kinds, right, right, 0.9, 0.7, margins),
        log,
    )


def test_curve_is_the_mean_over_seeds_where_all_logged() -> None:
    runs = [
        outcome("sds", 0, [{"step": 10, "clip": 1.0}, {"step": 20, "clip": 3.0}, {"step": 20}]),
        outcome("sds", 1, [{"step": 10, "clip": 2.0}, {"step": 20, "clip": 5.0}, {"step": 30, "clip": 9.0}]),
    ]

    steps, means = curve(runs, lambda record: record.get("clip"))

    assert steps == [10, 20]
    assert means.tolist() == [1.5, 4]


def test_curve_of_a_value_that_was_not_logged_is_empty() -> None:
    steps, means = curve([outcome("clip", 0, [{"step": 10, "clip": 1.0}])], relative_gap)

    assert steps == []
    assert len(means) == 0


def test_gap_is_relative_to_the_residual() -> None:
    assert relative_gap({"step": 1, "residual": 0.5, "residual_shuffled": 0.6}) == pytest.approx(20)
    assert relative_gap({"step": 1, "residual": 0.5}) is None


def test_running_mean_takes_fewer_values_at_the_ends() -> None:
    means = running_mean(np.array([1.0, 2.0, 6.0, 4.0]), window=3)

    assert means.tolist() == [1.5, 3, 4, 5]


def outcomes_like_the_demonstrations() -> list[Outcome]:
    rng = np.random.default_rng(0)
    made = []
    for trainable, factor in (("layernorm", 0.3), ("all", 1.0)):
        for place, variant in enumerate(("clip", "sds-full", "sds-sds", "negatives", "score", "ridge")):
            for seed in range(3):
                noise = rng.normal(size=(60, 3)) / 20
                log = [
                    {"step": 10.0 * k, "clip": 1 + a, "residual": 1 + b, "residual_shuffled": 1.1 + c}
                    for k, (a, b, c) in enumerate(noise.tolist())
                ]
                share = factor * (place + 1) / 6.5
                made.append(outcome(variant, seed, log, share=share, trainable=trainable))
    return made


def test_no_bar_is_cut_off_and_every_variant_has_its_curves() -> None:
    figure = draw(outcomes_like_the_demonstrations(), outcome("base", 0, [], share=0.03), {"all": "All"})

    assert len(figure.axes) == 8
    for axis in figure.axes[:4]:
        assert len(axis.patches) == 7 * 4
        assert axis.get_ylim()[0] <= 0
        assert max(patch.get_height() for patch in axis.patches) <= axis.get_ylim()[1]
    for axis in figure.axes[4:]:
        assert len(axis.lines) >= 6


def test_runs_without_l_sds_have_no_panel_of_residual_gaps() -> None:
    log = [{"step": 10.0, "clip": 1.0}]
    figure = draw([outcome("clip", 0, log, share=0.1)], outcome("base", 0, [], share=0.03), {})

    assert [axis.get_ylabel() for axis in figure.axes] == ["GroupMatch, %", "group score, %", "L_CLIP"]
    assert figure.axes[-1].get_xlabel() == "step"


def test_same_variant_has_one_colour_in_all_panels() -> None:
    figure = draw(outcomes_like_the_demonstrations(), outcome("base", 0, [], share=0.03), {})
    left, right = ([patch.get_facecolor() for patch in axis.patches] for axis in figure.axes[:2])

    assert left == right
    assert len(set(left)) == 7


def test_figure_stays_small(tmp_path: Path) -> None:
    file = tmp_path / "results.png"
    write_figure(outcomes_like_the_demonstrations(), outcome("base", 0, []), file, {})

    assert 10_000 < file.stat().st_size < 250_000
