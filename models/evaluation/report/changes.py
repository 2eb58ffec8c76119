"""Before and after: each difference with its interval, its counts and what McNemar's test says of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from models.evaluation.comparison import Comparison, MacroDifference, PairedDifference
from models.evaluation.report.charts import difference_bar, two_bars
from models.evaluation.report.words import interval, items, p_value, percent, points, points_interval
from models.evaluation.results import Results


@dataclass(frozen=True)
class ChangeRow:
    """A line of a before-and-after table; a mean over tags has neither counts nor a test."""

    name: str
    over: str
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
    """The headline outcome of every tag, the largest tags first."""
    name = comparison.outcome
    found = [(tag, outcomes[name]) for tag, outcomes in comparison.by_tag.items() if name in outcomes]
    found.sort(key=lambda row: -row[1].counts.n)
    return _rows(found)


def summary(results: Results, comparison: Comparison | None) -> list[str]:
    """What a reader should know first, in sentences."""
    if comparison is None:
        metric = results.metrics[results.primary]
        ties = f", {metric.ties} of them ties, which count as wrong" if metric.ties else ""
        return [
            f"{results.primary} is {percent(metric.value)} (95 % interval {interval(metric.low, metric.high)}) "
            f"over {items(metric.n)}{ties}."
        ]
    one = comparison.headline
    return [*([_macro_sentence(comparison.macro)] if comparison.macro else []), _sentence(one)]


def _sentence(one: PairedDifference) -> str:
    return (
        f"{one.outcome} went from {percent(one.baseline)} to {percent(one.model)}: {points(one.difference)} points "
        f"(95 % interval {points_interval(one.low, one.high)}) over {items(one.counts.n)}, {one.counts.gained} "
        f"gained and {one.counts.lost} lost. McNemar\u2019s exact test: {p_value(one.p_better)} one-sided (better), "
        f"{p_value(one.p_two_sided)} two-sided."
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
