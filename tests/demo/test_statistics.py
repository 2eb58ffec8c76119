from collections.abc import Sequence

import numpy as np
import pytest
from scipy.stats import binom

from sds_clip.demo.experiment import Outcome
from sds_clip.demo.measure import StudentScores
from sds_clip.demo.statistics import difference, holm, interval


def outcome(
    right: Sequence[int],
    *,
    seed: int = 0,
    kinds: Sequence[str] | None = None,
) -> Outcome:
    """A run that has text, and so group, right where `right` is 1, GroupMatch where it is 0, and every image."""
    text = [bool(value) for value in right]
    margins = [0.5 - value for value in right]
    measured = StudentScores(
        list(kinds or ["objects"] * len(text)), text, [True] * len(text), 0.9, 0.7, margins
    )
    return Outcome("variant", "all", seed, "validation", 1.0, {}, measured, [])


def test_scores_are_means_over_seeds_and_items_of_a_kind() -> None:
    kinds = ["attributes", "attributes", "objects", "objects"]
    runs = [outcome([1, 0, 1, 1], kinds=kinds), outcome([0, 0, 1, 0], seed=1, kinds=kinds)]

    assert interval(runs, "group").mean == 4 / 8
    assert interval(runs, "group_match", "attributes").mean == 3 / 4
    assert interval(runs, "group", "attributes").mean == 1 / 4


def test_group_needs_text_and_image() -> None:
    both = [True, True, False, False], [True, False, True, False]
    measured = StudentScores(["objects"] * 4, *both, 1.0, 1.0, [1.0] * 4)

    assert interval([Outcome("v", "all", 0, "heldout", 1.0, {}, measured, [])], "group").mean == 1 / 4


def test_interval_of_one_seed_is_the_binomials() -> None:
    found = interval([outcome([1] * 30 + [0] * 70)], "group")

    assert (found.low, found.high) == pytest.approx(binom.ppf([0.025, 0.975], 100, 0.3) / 100, abs=0.0101)


def test_interval_of_seeds_that_differ_is_as_wide_as_they_are() -> None:
    # Two in nine resamples of two seeds hold one of them alone, however many items there are.
    found = interval([outcome([0] * 200), outcome([1] * 200, seed=1)], "group")

    assert (found.mean, found.low, found.high) == (0.5, 0, 1)


def test_interval_is_that_of_resampling_one_by_one() -> None:
    rng = np.random.default_rng(5)
    right = rng.random((3, 40)) < np.array([[0.3], [0.5], [0.6]])
    means = [
        right[rng.integers(3, size=3)][:, rng.integers(40, size=40)].mean() for _ in range(10_000)
    ]  # fmt: skip

    found = interval([outcome(row, seed=seed) for seed, row in enumerate(right)], "group")

    assert (found.low, found.high) == pytest.approx(np.percentile(means, [2.5, 97.5]), abs=0.015)


def test_equal_runs_have_no_difference() -> None:
    runs = [outcome([1, 0, 1]), outcome([0, 0, 1], seed=1)]

    found = difference(runs, runs, "group")

    assert (found.mean, found.low, found.high) == (0, 0, 0)


def test_difference_is_paired_by_item() -> None:
    # Both are right on most items at random; where they differ, 10 of 100, the variant is right.
    common = [1, 0] * 45
    found = difference([outcome([*common, *[1] * 10])], [outcome([*common, *[0] * 10])], "group")

    assert found.mean == pytest.approx(0.1)
    assert (found.low, found.high) == pytest.approx(binom.ppf([0.025, 0.975], 100, 0.1) / 100, abs=0.0101)


def test_difference_is_paired_by_seed_whatever_the_order() -> None:
    variant = [outcome([1] * 20, seed=2), outcome([0] * 19 + [1], seed=1)]
    control = [outcome([0] * 20, seed=1), outcome([1] * 19 + [0], seed=2)]

    found = difference(variant, control, "group")

    assert found.mean == pytest.approx(1 / 20)
    assert found.high < 0.3


def test_difference_is_of_one_kind_where_asked() -> None:
    kinds = ["attributes"] * 10 + ["relation"] * 10
    variant, control = outcome([1] * 10 + [0] * 10, kinds=kinds), outcome([0] * 20, kinds=kinds)

    assert difference([variant], [control], "group", "attributes").mean == 1
    assert difference([variant], [control], "group", "relation").mean == 0
    assert difference([variant], [control], "group").mean == 0.5


def test_results_are_the_same_every_time() -> None:
    runs = [outcome([1, 0, 1, 0, 0, 1]), outcome([0, 0, 1, 1, 0, 1], seed=1)]

    assert interval(runs, "group") == interval(runs[::-1], "group")


def test_control_with_other_seeds_is_refused() -> None:
    with pytest.raises(ValueError, match=r"Seeds \[0\] .* \[1\]"):
        difference([outcome([1])], [outcome([1], seed=1)], "group")


def test_control_on_other_items_is_refused() -> None:
    with pytest.raises(ValueError, match="not of the same items"):
        difference([outcome([1, 1])], [outcome([1, 1], kinds=["objects", "relation"])], "group")


def test_outcomes_that_cannot_be_averaged_are_refused() -> None:
    with pytest.raises(ValueError, match="no outcomes"):
        interval([], "group")
    with pytest.raises(ValueError, match="twice"):
        interval([outcome([1]), outcome([1])], "group")
    with pytest.raises(ValueError, match="'relation'"):
        interval([outcome([1])], "group", "relation")


def test_holm_multiplies_by_the_tests_that_are_left_and_keeps_the_order() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
