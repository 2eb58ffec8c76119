"""Compare two models on the same items: paired differences, over all items and by tag.

`compare` pairs the items by id. For every outcome it gives the 2x2 counts, McNemar's exact test, and a
bootstrap interval of the difference. `promote: if_better` applies it to GroupMatch (`sds_clip.app.registry.gate`).
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from sds_clip.models.errors import EvaluationError
from sds_clip.models.evaluation.paired import (
    PairedCounts,
    Pairs,
    bootstrap_interval,
    counted,
    mcnemar,
    paired_items,
)
from sds_clip.models.evaluation.results import FORMAT, GROUP_MATCH, Metric, Results, write_json

# A primary figure may differ by this much from the mean of its items.
_ROUNDING = 1e-6


@dataclass(frozen=True)
class PairedDifference:
    """Model minus baseline in one outcome: shares in [0, 1], a difference in [-1, 1].

    `low` and `high` are the ends of its 95 % bootstrap interval. Both are 0 if no item changed, which proves
    nothing. The p-values are from McNemar's exact test. The null hypothesis of `p_better` is that the model is no
    better, that of `p_two_sided` that the two are equal. They are not corrected for the number of tags. `chance`
    is the share that random scores reach, if the results state it.
    """

    outcome: str
    counts: PairedCounts
    baseline: float
    model: float
    difference: float
    low: float
    high: float
    p_better: float
    p_two_sided: float
    chance: float | None = None


@dataclass(frozen=True)
class MacroDifference:
    """Model minus baseline in a mean over tags, as ARO and SugarCrepe publish it, with its 95 % interval.

    McNemar's test weighs all items alike and says nothing about such a mean. The bootstrap is stratified:
    every resample draws as many items of each tag as there are. This underestimates how much a tag of few
    items varies.
    """

    metric: str
    tags: tuple[str, ...]
    baseline: float
    model: float
    difference: float
    low: float
    high: float
    chance: float | None = None


@dataclass(frozen=True)
class Comparison:
    """Two runs of one benchmark, item by item.

    `outcomes` holds every outcome over all items that have it, and `by_tag[tag]` the same over the items of a
    tag. `macro` is set if the benchmark's primary figure is a mean over tags.
    """

    benchmark: str
    outcome: str
    outcomes: dict[str, PairedDifference]
    by_tag: dict[str, dict[str, PairedDifference]]
    macro: MacroDifference | None
    seed: int

    @property
    def headline(self) -> PairedDifference:
        """The difference in the outcome from which the benchmark's primary figure is computed."""
        return self.outcomes[self.outcome]


def compare(baseline: Results, model: Results, *, seed: int = 0) -> Comparison:
    """Compare a model with a baseline on the items that both were run on, whatever their order.

    The primary figure is recomputed from the items, as their mean or as the mean over `macro_tags`.

    Raises:
        EvaluationError: the two differ in benchmark, data hash, items or outcomes; there are no items, or an id
            twice; or the primary figure is not what its items give.
    """
    pairs = paired_items(baseline, model)
    names = list(dict.fromkeys(name for _, item in pairs for name in item.correct))
    counts = {name: _count(pairs, name) for name in names}
    tags = sorted({tag for _, item in pairs for tag in item.tags})
    macro = _macro(baseline, model, pairs, seed)
    return Comparison(
        benchmark=model.benchmark,
        outcome=model.outcome,
        outcomes={
            name: _difference(name, counts[name][None], seed, _chance(model.metrics, name)) for name in names
        },
        by_tag={
            tag: {
                name: _difference(name, counts[name][tag], seed, _chance(model.by_tag.get(tag, {}), name))
                for name in names
                if tag in counts[name]
            }
            for tag in tags
        },
        macro=macro and replace(macro, chance=model.metrics[model.primary].chance),
        seed=seed,
    )


def comparison_rows(comparison: Comparison) -> tuple[list[str], list[list[object]]]:
    """Return a header and rows for a terminal, in percent and points.

    The rows are every outcome over all items, then the outcomes of `compared_by_tag` by tag.
    """
    header = [
        "items", "outcome", "n", "chance %", "baseline %", "model %", "points", "low", "high", "gained", "lost",
        "p better", "p two-sided",
    ]  # fmt: skip
    rows = [_row("all", difference) for difference in comparison.outcomes.values()]
    if (macro := comparison.macro) is not None:
        items = f"mean of {len(macro.tags)} tags"
        rows.append([items, macro.metric, None, *_percent(macro), None, None, None, None])
    for tag, outcomes in comparison.by_tag.items():
        rows += [_row(tag, outcomes[name]) for name in compared_by_tag(comparison) if name in outcomes]
    return header, rows


def compared_by_tag(comparison: Comparison) -> list[str]:
    """Return the outcomes that are shown by tag: the headline, and GroupMatch if there is one."""
    return [name for name in comparison.outcomes if name in (comparison.outcome, GROUP_MATCH)]


def write_comparison(path: Path, comparison: Comparison) -> None:
    """Write every outcome's difference, over all items and by tag, whole or not at all."""
    write_json(path, {"format": FORMAT, **asdict(comparison)})


def _row(items: str, of: PairedDifference) -> list[object]:
    p_values = [f"{p:.2g}" for p in (of.p_better, of.p_two_sided)]  # with fixed decimals many would be 0
    return [items, of.outcome, of.counts.n, *_percent(of), of.counts.gained, of.counts.lost, *p_values]


def _percent(of: PairedDifference | MacroDifference) -> list[float | None]:
    shares = (of.chance, of.baseline, of.model, of.difference, of.low, of.high)
    return [None if share is None else 100 * share for share in shares]


def _count(pairs: Pairs, outcome: str) -> dict[str | None, PairedCounts]:
    """Return the counts of an outcome by tag, and under None over all items that have it."""
    cells: dict[str | None, Counter[tuple[bool, bool]]] = {}
    for before, after in pairs:
        if outcome in after.correct:
            for tag in (None, *dict.fromkeys(after.tags)):
                cells.setdefault(tag, Counter())[before.correct[outcome], after.correct[outcome]] += 1
    return {tag: counted(found) for tag, found in cells.items()}


def _chance(metrics: Mapping[str, Metric], outcome: str) -> float | None:
    return next((metric.chance for metric in metrics.values() if metric.outcome == outcome), None)


def _difference(outcome: str, counts: PairedCounts, seed: int, chance: float | None) -> PairedDifference:
    low, high = bootstrap_interval([(counts, 1 / counts.n)], seed=seed)
    p_better, p_two_sided = mcnemar(counts)
    return PairedDifference(
        outcome=outcome,
        counts=counts,
        baseline=(counts.both + counts.lost) / counts.n,
        model=(counts.both + counts.gained) / counts.n,
        difference=(counts.gained - counts.lost) / counts.n,
        low=low,
        high=high,
        p_better=p_better,
        p_two_sided=p_two_sided,
        chance=chance,
    )


def _macro(baseline: Results, model: Results, pairs: Pairs, seed: int) -> MacroDifference | None:
    """Return the difference of the means over tags, or None if the primary figure is the mean over items.

    Raises EvaluationError if the primary figure is not that mean.
    """
    tags = model.macro_tags
    of = [(before, after) for before, after in pairs if model.outcome in after.correct]
    over_items = [(_count(of, model.outcome)[None], 1 / len(of))]
    strata = _strata(of, model.outcome, tags) if tags else over_items
    reported = _primary(baseline), _primary(model)
    means = (
        sum(weight * (counts.both + counts.lost) for counts, weight in strata),
        sum(weight * (counts.both + counts.gained) for counts, weight in strata),
    )
    if not all(math.isclose(*both, abs_tol=_ROUNDING) for both in zip(reported, means, strict=True)):
        raise EvaluationError(
            f"{model.primary!r} is {reported[0]:.6f} and {reported[1]:.6f}, which is not the mean of "
            f"{model.outcome!r} over the {'tags' if tags else 'items'}. List the tags of the mean in "
            "macro_tags."
        )
    if not tags:
        return None
    low, high = bootstrap_interval(strata, seed=seed)
    return MacroDifference(model.primary, tags, *reported, reported[1] - reported[0], low, high)


def _strata(pairs: Pairs, outcome: str, tags: Sequence[str]) -> list[tuple[PairedCounts, float]]:
    """Return items grouped by their tags, and the weight of each item of a group in the mean over tags.

    An item that has several of the tags counts in each: its weight is the sum of 1 / (items of a tag) / tags.
    """
    wanted = set(tags)
    cells: dict[tuple[str, ...], Counter[tuple[bool, bool]]] = {}
    for before, after in pairs:
        own = tuple(sorted(wanted.intersection(after.tags)))
        cells.setdefault(own, Counter())[before.correct[outcome], after.correct[outcome]] += 1
    sizes: Counter[str] = Counter()
    for own, found in cells.items():
        sizes.update(dict.fromkeys(own, found.total()))
    return [
        (counted(found), sum(1 / sizes[tag] for tag in own) / len(tags))
        for own, found in cells.items()
        if own
    ]


def _primary(results: Results) -> float:
    try:
        return results.metrics[results.primary].value
    except KeyError:
        raise EvaluationError(
            f"The results have no figure {results.primary!r}; they have {sorted(results.metrics)}."
        ) from None
