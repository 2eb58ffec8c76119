"""Before and after: each difference with its interval, its counts and what McNemar's test says of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from models.evaluation.comparison import Comparison, MacroDifference, PairedDifference, compared_by_tag
from models.evaluation.report.charts import difference_bar, two_bars
from models.evaluation.report.words import (
    chance,
    interval,
    items,
    p_value,
    percent,
    points,
    points_interval,
)
from models.evaluation.results import GROUP_MATCH, Metric, Results

_GROUP_MATCH = (
    "GroupMatch asks whether the two right pairs of an item together score above the two wrong ones: how high a "
    "caption or an image scores by itself does not count, so it measures binding where text, image and group scores "
    "measure these levels too."
)


@dataclass(frozen=True)
class ChangeRow:
    """A line of a before-and-after table; a mean over tags has neither counts nor a test."""

    name: str
    over: str
    chance: str
    before: str
    after: str
    bars: Markup
    difference: str
    interval: str
    axis: Markup
    counts: str
    tested: list[str]


def change_rows(comparison: Comparison) -> list[ChangeRow]:
    """The primary mean over tags where there is one, then the outcomes, the headline first."""
    macro = [(comparison.macro.metric, comparison.macro)] if comparison.macro else []
    outcomes = sorted(comparison.outcomes.items(), key=lambda named: named[0] != comparison.outcome)
    return _rows([*macro, *outcomes])


def tag_changes(comparison: Comparison) -> list[ChangeRow]:
    """The headline outcome of every tag, and GroupMatch where there is one; the largest tags first."""
    found = [
        (tag if name == comparison.outcome else f"{tag}: {name}", outcomes[name])
        for tag, outcomes in comparison.by_tag.items()
        for name in compared_by_tag(comparison)
        if name in outcomes
    ]
    found.sort(key=lambda row: -row[1].counts.n)
    return _rows(found)


def summary(results: Results, comparison: Comparison | None) -> list[str]:
    """What a reader should know first, in sentences."""
    if comparison is None:
        shown = [name for name in (results.primary, GROUP_MATCH) if name in results.metrics]
        sentences = [_metric_sentence(name, results.metrics[name]) for name in shown]
    else:
        changed = [comparison.headline]
        if GROUP_MATCH in comparison.outcomes:
            changed.append(comparison.outcomes[GROUP_MATCH])
        sentences = [_sentence(one) for one in changed]
        if comparison.macro:
            sentences.insert(0, _macro_sentence(comparison.macro))
    return [*sentences, _GROUP_MATCH] if GROUP_MATCH in results.metrics else sentences


def _metric_sentence(name: str, metric: Metric) -> str:
    ties = f", {metric.ties} of them ties, which count as wrong" if metric.ties else ""
    prime = "" if metric.d_prime is None else f" d\u2032 is {metric.d_prime:.2f}."
    return (
        f"{name} is {percent(metric.value)} (95 % interval {interval(metric.low, metric.high)}) "
        f"over {items(metric.n)}{ties}.{_against_chance(metric.chance, metric.value)}{prime}"
    )


def _against_chance(by_chance: float | None, *values: float) -> str:
    if by_chance is None:
        return ""
    if min(values) < by_chance:
        return f" {chance(by_chance).capitalize()}: below it, noise alone raises a score."
    return f" {chance(by_chance).capitalize()}."


def _sentence(one: PairedDifference) -> str:
    return (
        f"{one.outcome} went from {percent(one.baseline)} to {percent(one.model)}: {points(one.difference)} points "
        f"(95 % interval {points_interval(one.low, one.high)}) over {items(one.counts.n)}, {one.counts.gained} "
        f"gained and {one.counts.lost} lost. McNemar\u2019s exact test: {p_value(one.p_better)} one-sided (better), "
        f"{p_value(one.p_two_sided)} two-sided.{_against_chance(one.chance, one.baseline, one.model)}"
    )


def _macro_sentence(one: MacroDifference) -> str:
    return (
        f"{one.metric}, the mean over {len(one.tags)} tags, went from {percent(one.baseline)} to "
        f"{percent(one.model)}: {points(one.difference)} points (95 % interval "
        f"{points_interval(one.low, one.high)})."
    )


def _rows(named: Sequence[tuple[str, PairedDifference | MacroDifference]]) -> list[ChangeRow]:
    """All rows on one axis, as wide as their widest interval and at least a point."""
    limit = max([0.01, *(abs(end) for _, one in named for end in (one.low, one.high, one.difference))]) * 1.05
    return [_row(name, one, limit) for name, one in named]


def _row(name: str, one: PairedDifference | MacroDifference, limit: float) -> ChangeRow:
    over, counts, tested = _details(one)
    return ChangeRow(
        name=name,
        over=over,
        chance=chance(one.chance),
        before=percent(one.baseline),
        after=percent(one.model),
        bars=two_bars(one.baseline, one.model),
        difference=points(one.difference),
        interval=points_interval(one.low, one.high),
        axis=difference_bar(one.difference, one.low, one.high, limit=limit),
        counts=counts,
        tested=tested,
    )


def _details(one: PairedDifference | MacroDifference) -> tuple[str, str, list[str]]:
    if isinstance(one, MacroDifference):
        return f"mean of {len(one.tags)} tags", "", []
    gained, lost = one.counts.gained, one.counts.lost
    return (
        items(one.counts.n),
        f"{gained} gained, {lost} lost" if gained or lost else "no item changed",
        [f"{p_value(one.p_better)} better", f"{p_value(one.p_two_sided)} two-sided"],
    )
