import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy.stats import binomtest, bootstrap

from sds_clip.models.errors import EvaluationError
from sds_clip.models.evaluation.comparison import compare, comparison_rows
from sds_clip.models.evaluation.paired import PairedCounts, bootstrap_interval, mcnemar
from sds_clip.models.evaluation.results import ItemOutcome, Metric, Results
from sds_clip.table import table


def results(
    right: Sequence[int],
    *,
    tags: Sequence[Sequence[str]] | None = None,
    primary: float | None = None,
    macro_tags: tuple[str, ...] = (),
    **provenance: Any,
) -> Results:
    """A run that has text, and so group, right where `right` is 1, and every image right."""
    items = tuple(
        ItemOutcome(
            id=str(number),
            correct={"text": bool(value), "image": True, "group": bool(value)},
            margins={"text": value - 0.5, "image": 0.5, "group": value - 0.5},
            tags=tuple(tags[number]) if tags else (),
        )
        for number, value in enumerate(right)
    )
    share = sum(right) / len(right) if primary is None else primary
    metric = Metric(share, share, share, len(right))
    return Results(
        "winoground", "group_score", "group", {"group_score": metric}, {}, items, provenance, macro_tags
    )


# Of ten items two stay right, five are gained, one is lost, two stay wrong.
BEFORE = [1, 1, 0, 0, 0, 0, 0, 1, 0, 0]
AFTER = [1, 1, 1, 1, 1, 1, 1, 0, 0, 0]


def test_counts_and_shares_are_those_worked_out_by_hand() -> None:
    group = compare(results(BEFORE), results(AFTER)).headline

    assert group.outcome == "group"
    assert group.counts == PairedCounts(both=2, gained=5, lost=1, neither=2)
    assert group.counts.n == 10
    assert (group.baseline, group.model) == (3 / 10, 7 / 10)
    assert group.difference == pytest.approx(4 / 10)


def test_p_values_are_those_of_a_fair_coin_worked_out_by_hand() -> None:
    # Of 6 tosses at least 5 heads: (6 + 1) / 2^6; twice that for both sides.
    group = compare(results(BEFORE), results(AFTER)).headline

    assert group.p_better == pytest.approx(7 / 64)
    assert group.p_two_sided == pytest.approx(14 / 64)


def test_exchanging_the_models_turns_everything_round() -> None:
    group = compare(results(AFTER), results(BEFORE)).headline

    # At least 1 head of 6: all but 1 / 2^6.
    assert group.p_better == pytest.approx(63 / 64)
    assert group.p_two_sided == pytest.approx(14 / 64)
    assert (group.counts.gained, group.counts.lost) == (1, 5)
    assert group.difference == pytest.approx(-4 / 10)


@pytest.mark.parametrize(("gained", "lost"), [(1, 0), (0, 7), (24, 11), (10, 10), (300, 250), (600, 540)])
def test_mcnemar_is_the_sum_of_binomial_coefficients(gained: int, lost: int) -> None:
    n = gained + lost
    at_least = sum(math.comb(n, k) for k in range(gained, n + 1)) / 2**n
    larger = sum(math.comb(n, k) for k in range(max(gained, lost), n + 1)) / 2**n
    p_better, p_two_sided = mcnemar(PairedCounts(5, gained, lost, 5))

    assert p_better == pytest.approx(at_least, rel=1e-9)
    assert p_two_sided == pytest.approx(min(1, 2 * larger), rel=1e-9)
    assert p_better == pytest.approx(binomtest(gained, n, alternative="greater").pvalue)


def test_without_a_changed_item_nothing_is_shown() -> None:
    group = compare(results(BEFORE), results(BEFORE)).headline

    assert (group.p_better, group.p_two_sided) == (1, 1)
    assert (group.difference, group.low, group.high) == (0, 0, 0)


@pytest.mark.parametrize("shares", [(0.1, 0.06, 0.84), (0.02, 0.0, 0.98), (0.3, 0.3, 0.4)])
def test_interval_is_the_paired_bootstrap_of_scipy(shares: tuple[float, float, float]) -> None:
    n = 400
    gained, lost = round(shares[0] * n), round(shares[1] * n)
    changes = np.repeat([1, -1, 0], [gained, lost, n - gained - lost])
    expected = bootstrap(
        (changes,), np.mean, n_resamples=20_000, method="percentile", rng=np.random.default_rng(1), batch=1000
    ).confidence_interval

    found = bootstrap_interval([(PairedCounts(20, gained, lost, n - 20 - gained - lost), 1 / n)], seed=0)

    assert found == pytest.approx((expected.low, expected.high), abs=1.01 / n)


def test_interval_depends_on_the_seed_alone() -> None:
    strata = [(PairedCounts(0, 700, 600, 3700), 1 / 5000)]

    assert bootstrap_interval(strata, seed=3) == bootstrap_interval(strata, seed=3)
    assert len({bootstrap_interval(strata, seed=seed) for seed in range(10)}) > 1


def test_items_are_paired_by_id_whatever_their_order() -> None:
    after = results(AFTER)
    turned = replace(after, items=after.items[::-1])

    assert compare(results(BEFORE), turned) == compare(results(BEFORE), after)


def test_effect_of_a_tag_is_that_of_its_items_alone() -> None:
    tags = [["a"], ["a"], ["a", "b"], ["a"], [], ["b"], ["b"], ["b"], ["b"], ["c"]]
    found = compare(results(BEFORE, tags=tags), results(AFTER, tags=tags)).by_tag

    assert list(found) == ["a", "b", "c"]
    assert found["a"]["group"].counts == PairedCounts(both=2, gained=2, lost=0, neither=0)
    assert found["b"]["text"].counts == PairedCounts(both=0, gained=3, lost=1, neither=1)
    assert found["b"]["image"].counts == PairedCounts(both=5, gained=0, lost=0, neither=0)
    assert found["a"]["group"].p_better == 1 / 4


def test_outcomes_that_only_some_items_have_are_compared_on_those() -> None:
    def run(right: Sequence[int]) -> Results:
        found = results(right)
        captions = tuple(
            ItemOutcome(f"caption {k}", {"found": bool(v)}, {"found": v - 0.5})
            for k, v in enumerate(right[:4])
        )
        return replace(found, items=found.items + captions)

    comparison = compare(run(BEFORE), run(AFTER))

    assert comparison.headline.counts.n == 10
    assert comparison.outcomes["found"].counts == PairedCounts(both=2, gained=2, lost=0, neither=0)


# Tag a has 4 items, of which 3 become 4 right; tag b has 2, of which 0 becomes 1.
TAGS = [["a"], ["a"], ["a"], ["a"], ["b"], ["b"]]


def macro_results(right: Sequence[int], primary: float, macro_tags: tuple[str, ...] = ("a", "b")) -> Results:
    return results(right, tags=TAGS, primary=primary, macro_tags=macro_tags)


def test_mean_over_tags_is_recomputed_and_compared() -> None:
    macro = compare(macro_results([1, 1, 1, 0, 0, 0], 3 / 8), macro_results([1, 1, 1, 1, 1, 0], 3 / 4)).macro

    assert macro is not None
    assert macro.tags == ("a", "b")
    assert (macro.baseline, macro.model) == (3 / 8, 3 / 4)
    assert macro.difference == pytest.approx(3 / 8)


def test_interval_of_a_mean_over_tags_is_that_of_resampling_each_tag() -> None:
    rng = np.random.default_rng(7)
    sizes = {"a": 60, "b": 12, "c": 30}
    tags = [[name] for name, size in sizes.items() for _ in range(size)]
    before, after = ((rng.random(102) < share).astype(int).tolist() for share in (0.5, 0.6))
    edges = [(0, 60), (60, 72), (72, 102)]
    changes = [np.subtract(after[low:high], before[low:high]) for low, high in edges]
    means = [
        np.mean([rng.choice(tag, size=len(tag)).mean() for tag in changes]) for _ in range(4000)
    ]  # fmt: skip
    primaries = [float(np.mean([np.mean(run[a:b]) for a, b in edges])) for run in (before, after)]

    runs = [
        results(right, tags=tags, primary=primary, macro_tags=tuple(sizes))
        for right, primary in zip((before, after), primaries, strict=True)
    ]
    macro = compare(*runs).macro

    assert macro is not None
    assert macro.difference == pytest.approx(np.mean([tag.mean() for tag in changes]))
    assert (macro.low, macro.high) == pytest.approx(tuple(np.percentile(means, [2.5, 97.5])), abs=0.015)


def test_tags_that_are_left_out_of_the_mean_are_named() -> None:
    before, after = [1, 1, 1, 0, 0, 0], [1, 1, 1, 1, 1, 0]
    macro = compare(macro_results(before, 3 / 4, ("a",)), macro_results(after, 1.0, ("a",))).macro

    assert macro is not None
    assert macro.tags == ("a",)
    assert macro.difference == pytest.approx(1 / 4)
    with pytest.raises(EvaluationError, match="not the mean of 'group' over the tags"):
        compare(macro_results(before, 3 / 4), macro_results(after, 1.0))


EVEN = [["a"], ["a"], ["b"], ["b"]]
"""Tags of one size, over which the mean is the mean over items."""


def test_mean_over_tags_of_one_size_is_compared_as_such() -> None:
    """Of a, 1 of 2 becomes 2 of 2; of b, 0 of 2 becomes 1 of 2."""
    runs = [results(right, tags=EVEN, macro_tags=("a", "b")) for right in ([1, 0, 0, 0], [1, 1, 0, 1])]
    macro = compare(*runs).macro

    assert macro is not None
    assert macro.tags == ("a", "b")
    assert (macro.baseline, macro.model) == (1 / 4, 3 / 4)


def test_mean_over_items_is_no_mean_over_tags_of_one_size() -> None:
    runs = [results(right, tags=EVEN) for right in ([1, 0, 0, 0], [1, 1, 0, 1])]

    assert compare(*runs).macro is None
    with pytest.raises(EvaluationError, match="not the mean of 'group' over the items"):
        compare(*(macro_results(right, 3 / 8, ()) for right in ([1, 1, 1, 0, 0, 0],) * 2))


def test_item_with_two_tags_counts_in_both() -> None:
    # a: items 0 and 1; b: items 1 and 2. Only item 1 is gained: 1/2 in each, so 1/2 in their mean.
    tags = [["a"], ["a", "b"], ["b"], []]
    before, after = (
        results([0, 0, 0, 1], tags=tags, primary=0.0, macro_tags=("a", "b")),
        results([0, 1, 0, 1], tags=tags, primary=0.5, macro_tags=("a", "b")),
    )
    macro = compare(before, after).macro

    assert macro is not None
    assert (macro.baseline, macro.model) == (0, 1 / 2)
    # Each of the three sets of tags has one item, so every resample is the same.
    assert (macro.low, macro.high) == pytest.approx((1 / 2, 1 / 2))


def test_mean_over_items_has_no_second_figure() -> None:
    assert compare(results(BEFORE), results(AFTER)).macro is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"benchmark": "aro"}, "benchmark is 'winoground' .*'aro'"),
        ({"provenance": {"data_hash": "b"}}, "data hash is 'a' .*'b'"),
        ({"primary": "text_score"}, "primary figure is 'group_score'"),
        ({"outcome": "text"}, "outcome is 'group' .*'text'"),
        ({"metrics": {}}, "no figure 'group_score'"),
    ],
)
def test_runs_that_cannot_be_compared_are_refused(change: dict[str, Any], message: str) -> None:
    before, after = results(BEFORE, data_hash="a"), results(AFTER, data_hash="a")
    with pytest.raises(EvaluationError, match=message):
        compare(before, replace(after, **change))


def test_items_of_one_run_alone_are_named() -> None:
    before, after = results(BEFORE), results(AFTER)
    with pytest.raises(EvaluationError, match="model was not run on item '0', '1', '2', '3', '4' and 1 more"):
        compare(before, replace(after, items=after.items[6:]))
    with pytest.raises(EvaluationError, match="baseline was not run on item '9'; run both"):
        compare(replace(before, items=before.items[:9]), after)


def test_item_with_two_results_is_refused() -> None:
    before, after = results(BEFORE), results(AFTER)
    with pytest.raises(EvaluationError, match=r"model has more than one result .*item '3'"):
        compare(before, replace(after, items=(*after.items, after.items[3])))


def test_items_with_other_outcomes_are_refused() -> None:
    before, after = results(BEFORE), results(AFTER)
    changed = replace(after.items[0], correct={"group": True})
    with pytest.raises(EvaluationError, match=r"Item '0' has the outcomes \['group', 'image', 'text'\]"):
        compare(before, replace(after, items=(changed, *after.items[1:])))


def test_runs_without_items_are_refused() -> None:
    none = replace(results(BEFORE), items=())
    with pytest.raises(EvaluationError, match="no items with the outcome 'group'"):
        compare(none, none)


def test_rows_hold_every_outcome_and_the_headline_by_tag() -> None:
    tags = [["left of"]] * 5 + [["behind"]] * 5
    header, rows = comparison_rows(compare(results(BEFORE, tags=tags), results(AFTER, tags=tags)))

    assert [row[:3] for row in rows] == [
        ["all", "text", 10],
        ["all", "image", 10],
        ["all", "group", 10],
        ["behind", "group", 5],
        ["left of", "group", 5],
    ]
    assert dict(zip(header, rows[2], strict=True)) == {
        "items": "all", "outcome": "group", "n": 10, "chance %": None, "baseline %": 30.0, "model %": 70.0,
        "points": pytest.approx(40.0), "low": pytest.approx(0.0, abs=10), "high": pytest.approx(80.0, abs=10),
        "gained": 5, "lost": 1, "p better": "0.11", "p two-sided": "0.22",
    }  # fmt: skip
    assert len(table(header, rows).splitlines()) == 1 + 5


def test_group_match_has_mcnemars_test_and_its_chance_over_all_and_by_tag() -> None:
    """Five gained, one lost of ten: P(X >= 5), X ~ B(6, 1/2), is 7/64."""

    def with_match(right: Sequence[int]) -> Results:
        run = results(right, tags=[["a"]] * 5 + [["b"]] * 5)
        items = tuple(
            replace(item, correct={**item.correct, "group_match": bool(value)})
            for item, value in zip(run.items, right, strict=True)
        )
        match = Metric(sum(right) / 10, 0.0, 1.0, 10, chance=0.5, outcome="group_match")
        by_tag = {tag: {"group_match": match} for tag in ("a", "b")}
        return replace(run, items=items, metrics={**run.metrics, "group_match": match}, by_tag=by_tag)

    found = compare(with_match(BEFORE), with_match(AFTER))

    match = found.outcomes["group_match"]
    assert (match.p_better, match.chance) == (pytest.approx(7 / 64), 0.5)
    assert found.by_tag["a"]["group_match"].chance == 0.5
    header, rows = comparison_rows(found)
    by_tag = [row[:4] for row in rows if row[0] in ("a", "b")]
    assert by_tag == [["a", "group", 5, None], ["a", "group_match", 5, 50.0], ["b", "group", 5, None],
                      ["b", "group_match", 5, 50.0]]  # fmt: skip
    assert header[3] == "chance %"


def test_mean_over_tags_has_a_row_without_a_test() -> None:
    before, after = macro_results([1, 1, 1, 0, 0, 0], 3 / 8), macro_results([1, 1, 1, 1, 1, 0], 3 / 4)
    header, rows = comparison_rows(compare(before, after))

    row = dict(zip(header, rows[3], strict=True))
    assert (row["items"], row["outcome"], row["n"]) == ("mean of 2 tags", "group_score", None)
    assert row["p better"] is None


@pytest.mark.parametrize("changed", [4, 5, 40, 101])
def test_equal_models_are_called_better_in_one_of_twenty_runs_at_most(changed: int) -> None:
    gains = range(changed + 1)
    better = [gained for gained in gains if mcnemar(PairedCounts(9, gained, changed - gained, 9))[0] < 0.05]

    assert sum(math.comb(changed, gained) for gained in better) / 2**changed <= 0.05
    assert better == [gained for gained in gains if gained >= changed + 1 - len(better)]


def test_interval_holds_the_true_difference_as_often_as_it_says() -> None:
    rng = np.random.default_rng(11)
    covered, runs = 0, 150
    for _ in range(runs):
        gained, lost, same = rng.multinomial(400, [0.07, 0.03, 0.9]).tolist()
        low, high = bootstrap_interval([(PairedCounts(same, gained, lost, 0), 1 / 400)], seed=0)
        covered += low <= 0.07 - 0.03 <= high

    # The share's own standard deviation is 0.018.
    assert covered / runs == pytest.approx(0.95, abs=0.05)
