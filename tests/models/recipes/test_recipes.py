"""Recipes and plans, the differences that are shown, and their power, against computations of their own."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sds_clip.models.errors import ConfigError
from sds_clip.models.evaluation.estimate import estimate
from sds_clip.models.evaluation.results import ItemOutcome, Metric, Results
from sds_clip.models.recipes.differences import Difference, _corrected, _paired
from sds_clip.models.recipes.plan import Plan, read_plan
from sds_clip.models.recipes.power import CHANGED, LEVEL, power, seeds_needed
from sds_clip.models.recipes.recipe import names, recipe_of


def plan(**changes: Any) -> Plan:
    given = {
        "base": "demo",
        "teacher": "demo",
        "data": "pairs.csv",
        "options": {"steps": 4},
        "recipes": names(),
        "control": "clip",
        "benchmarks": {"winoground": "winoground"},
        "primary": "winoground",
    }
    return read_plan(given | changes)


@pytest.mark.parametrize("name", names())
def test_a_recipe_that_ships_says_what_it_is_and_makes_a_run(name: str) -> None:
    recipe, own = recipe_of(name)
    assert recipe.title
    assert recipe.ours
    assert not own
    config = plan().config(name, 3)
    assert (config.seed, config.steps, config.base) == (3, 4, "demo")
    assert (config.teacher is not None) == config.uses_teacher
    for option, value in recipe.options.items():
        assert getattr(config, option) == value


def test_an_option_is_the_recipes_own_in_the_plan_or_the_shared_one_or_the_one_that_ships() -> None:
    asked = plan(
        options={"steps": 4, "trainable": "batchnorm", "lr": 0.5},
        recipes={"clip": "clip", "mine": {"recipe": "negclip", "trainable": "lora"}},
    )
    assert asked.config("clip", 0).trainable == "batchnorm"
    assert asked.config("mine", 0).trainable == "lora"
    assert asked.config("mine", 0).lr == 0.5
    assert asked.config("mine", 0).negatives_loss == "contrast"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"options": {"steps": 4, "trainable": "lora"}, "recipes": ["clip", "negclip"]}, "negclip: .*: all"),
        ({"recipes": {"clip": {"lr": 1e-3}}}, "clip: .* needs `recipe`"),
        ({"recipes": [{"clip": {}}]}, "A list has only names"),
        ({"recipes": ["clip", "clip"]}, "A recipe is there twice"),
        ({"recipes": {"clip": {"recipe": "clip", "lambda": 1, "sds_weight": 2}}}, "sds_weight is there twice"),
        ({"benchmarks": {"winoground": {"data": "x", "templates": "openai"}}}, "templates cannot be used"),
    ],
)  # fmt: skip
def test_a_plan_that_means_something_else_than_it_says_is_refused(
    changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        plan(**{"control": "clip", **changes})


def test_the_hash_of_a_plan_is_that_of_all_it_says() -> None:
    assert plan().hash == plan().hash
    assert plan().hash != plan(seeds=[0, 1]).hash


def results(right: dict[str, tuple[bool, tuple[str, ...]]], macro: tuple[str, ...] = ()) -> Results:
    items = tuple(
        ItemOutcome(id, {"acc": correct}, {"acc": 1.0 if correct else -1.0}, tags)
        for id, (correct, tags) in right.items()
    )
    shares = [np.mean([item.correct["acc"] for item in items if tag in item.tags]) for tag in macro]
    overall = float(np.mean([item.correct["acc"] for item in items]))
    metrics = {"acc": Metric(overall, 0.0, 1.0, len(items), outcome="acc")}
    if macro:
        metrics["mean"] = Metric(float(np.mean(shares)), 0.0, 1.0, len(items))
    return Results("sugarcrepe", "mean" if macro else "acc", "acc", metrics, {}, items, {}, macro)


def test_paired_differences_average_to_the_difference_of_a_mean_over_tags() -> None:
    random = np.random.default_rng(0)
    tags = ("rare", "usual")
    # Some items have both tags, and each tag its own number of items.
    of = {str(i): (("rare",) if i < 3 else ("rare", "usual") if i < 5 else ("usual",)) for i in range(20)}
    one, other = (
        results({i: (bool(random.integers(2)), own) for i, own in of.items()}, tags) for _ in range(2)
    )
    for figure in ("mean", "acc"):
        found = _paired([one, one], [other, other], figure)
        assert found.shape == (2, 20)
        assert found.mean() == pytest.approx(one.metrics[figure].value - other.metrics[figure].value)


def test_holms_p_grows_in_the_order_of_the_tests_and_is_at_most_one() -> None:
    given = {"a": 0.01, "b": 0.04, "c": 0.03, "d": 0.9, "none": None}
    found = _corrected({name: Difference(0.0, 0.0, 0.0, 0.0, p) for name, p in given.items()})
    # By hand: 4 x 0.01; 3 x 0.03; max(0.09, 2 x 0.04); max(0.09, 0.9).
    expected = {"a": 0.04, "c": 0.09, "b": 0.09, "d": 0.9, "none": None}
    assert {name: of.holm for name, of in found.items()} == pytest.approx(expected)


@pytest.mark.parametrize(("seeds", "items"), [(8, 400), (8, 3000)])
def test_the_power_is_the_share_of_simulated_comparisons_that_find_the_gain(seeds: int, items: int) -> None:
    """All seeds change the same items, and each has a gain of its own."""
    random, gain, deviation, draws = np.random.default_rng(1), 0.03, 0.02, 600
    changes = [(CHANGED + gain) / 2, (CHANGED - gain) / 2, 1 - CHANGED]
    found = 0
    for _ in range(draws):
        of_items = random.choice([1.0, -1.0, 0.0], size=items, p=changes)
        of_seeds = random.normal(0.0, deviation, size=(seeds, 1, 1))
        found += estimate(of_seeds + of_items[None, None, :]).p < LEVEL
    assert power(gain, seeds, items, deviation) == pytest.approx(found / draws, abs=0.05)


def test_more_seeds_find_more_and_the_number_needed_is_the_least() -> None:
    needed = seeds_needed(0.05, 2000, 0.02)
    assert needed is not None
    assert power(0.05, needed, 2000, 0.02) >= 0.8 > power(0.05, needed - 1, 2000, 0.02)
    assert seeds_needed(0.001, 50, 0.05) is None
    with pytest.raises(ValueError, match="at least one seed"):
        power(0.05, 0, 10, 0.02)


def test_the_documentation_names_every_recipe_that_ships() -> None:
    page = (Path(__file__).parents[3] / "docs" / "how-to" / "compare.md").read_text(encoding="utf-8")
    assert [name for name in names() if f"| `{name}` |" not in page] == []
