"""From items' outcomes to metrics: shares with their intervals, over all items and by tag."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from math import fsum
from typing import Any

from models.evaluation.errors import EvaluationError
from models.evaluation.intervals import mean_of_shares, wilson
from models.evaluation.results import ItemOutcome, Metric


@dataclass(frozen=True)
class Measured:
    """What a benchmark finds; `Results` is this with its provenance. `macro_tags` are the primary mean's parts."""

    primary: str
    outcome: str
    metrics: dict[str, Metric]
    by_tag: dict[str, dict[str, Metric]]
    items: tuple[ItemOutcome, ...]
    macro_tags: tuple[str, ...] = ()
    notes: dict[str, Any] = field(default_factory=dict)


Tie = Callable[[ItemOutcome, str], bool]
"""Whether an item's outcome of a name had a tie."""


Chance = Callable[[ItemOutcome, str], float]
"""How likely random scores are to get an item's outcome of a name right."""


def margin_is_zero(item: ItemOutcome, name: str) -> bool:
    """A tie where one difference decides."""
    return item.margins[name] == 0


def share(outcomes: Iterable[ItemOutcome], name: str, chance: Chance, tie: Tie = margin_is_zero) -> Metric:
    """The share of the items that have this outcome that are right in it, its chance, and how many had a tie.

    Raises:
        EvaluationError: no item has it.
    """
    right = n = ties = 0
    chances: list[float] = []
    for item in outcomes:
        if name in item.correct:
            n += 1
            right += item.correct[name]
            ties += tie(item, name)
            chances.append(chance(item, name))
    if n == 0:
        raise EvaluationError(f"There are no items to take {name} of.")
    low, high = wilson(right, n)
    return Metric(right / n, low, high, n, ties, fsum(chances) / n, name)


def mean_over_tags(by_tag: dict[str, dict[str, Metric]], tags: Sequence[str], name: str) -> Metric:
    """The plain mean of a metric over tags, each of whose items count alike within it."""
    of = [by_tag[tag][name] for tag in tags]
    value, low, high = mean_of_shares([(round(metric.value * metric.n), metric.n) for metric in of])
    chances = [metric.chance for metric in of if metric.chance is not None]
    chance = sum(chances) / len(chances) if len(chances) == len(of) else None
    return Metric(value, low, high, sum(metric.n for metric in of), sum(metric.ties for metric in of), chance)


def shares_by_tag(
    outcomes: Sequence[ItemOutcome], names: dict[str, str], chance: Chance
) -> dict[str, dict[str, Metric]]:
    """For every tag, its items' share of each outcome: {metric name: outcome name}."""
    return {
        tag: {
            metric: share(items, name, chance)
            for metric, name in names.items()
            if any(name in item.correct for item in items)
        }
        for tag, items in grouped_by_tag(outcomes).items()
    }


def grouped_by_tag(outcomes: Iterable[ItemOutcome]) -> dict[str, list[ItemOutcome]]:
    """The items of every tag, in the tags' alphabetical order."""
    grouped: dict[str, list[ItemOutcome]] = {}
    for item in outcomes:
        for tag in dict.fromkeys(item.tags):
            grouped.setdefault(tag, []).append(item)
    return {tag: grouped[tag] for tag in sorted(grouped)}
