"""The same items under two models: pair them by id, count, test and resample."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from sds_clip.models.errors import EvaluationError
from sds_clip.models.evaluation.results import ItemOutcome, Results

RESAMPLES = 10_000
_LISTED = 5  # ids in a message

Pairs = Sequence[tuple[ItemOutcome, ItemOutcome]]
"""For each item the outcome under the baseline and under the model."""


@dataclass(frozen=True)
class PairedCounts:
    """How many items are right in both models, only in the new one, only in the baseline, and in neither."""

    both: int
    gained: int
    lost: int
    neither: int

    @property
    def n(self) -> int:
        return self.both + self.gained + self.lost + self.neither


def paired_items(baseline: Results, model: Results) -> Pairs:
    """Pair the items of two runs by id, in the model's order.

    Raises:
        EvaluationError: the runs differ in benchmark, data hash, items or outcomes; no item has the primary
            figure's outcome, or an id occurs twice.
    """
    for what, before, after in (
        ("benchmark", baseline.benchmark, model.benchmark),
        ("data hash", baseline.provenance.get("data_hash"), model.provenance.get("data_hash")),
        ("primary figure", baseline.primary, model.primary),
        ("outcome", baseline.outcome, model.outcome),
    ):
        if before != after:
            raise EvaluationError(
                f"The {what} is {before!r} for the baseline but {after!r} for the model; run both on the "
                "same data."
            )
    old, new = _by_id(baseline.items, "baseline"), _by_id(model.items, "model")
    for whose, missing in (("baseline", new.keys() - old.keys()), ("model", old.keys() - new.keys())):
        if missing:
            raise EvaluationError(
                f"The {whose} was not run on {_listed(missing)}; run both on the same items."
            )
    if not any(model.outcome in item.correct for item in model.items):
        raise EvaluationError(f"There are no items with the outcome {model.outcome!r} to compare.")
    pairs = [(old[id], item) for id, item in new.items()]
    for before, after in pairs:
        if before.correct.keys() != after.correct.keys():
            raise EvaluationError(
                f"Item {after.id!r} has the outcomes {sorted(before.correct)} in the baseline but "
                f"{sorted(after.correct)} in the model; run both with the same version."
            )
    return pairs


def counted(cells: Mapping[tuple[bool, bool], int]) -> PairedCounts:
    """Make counts of the number of items by (right before, right after)."""
    return PairedCounts(
        both=cells.get((True, True), 0),
        gained=cells.get((False, True), 0),
        lost=cells.get((True, False), 0),
        neither=cells.get((False, False), 0),
    )


def mcnemar(counts: PairedCounts) -> tuple[float, float]:
    """Return the one-sided p-value of the model being no better, and the two-sided one.

    Under the null hypothesis, each of the gained + lost items changed in either direction with probability
    1/2.
    """
    from scipy.stats import binomtest

    changed = counts.gained + counts.lost
    if changed == 0:
        return 1.0, 1.0
    greater = binomtest(counts.gained, changed, 0.5, alternative="greater")
    return float(greater.pvalue), float(binomtest(counts.gained, changed, 0.5).pvalue)


def bootstrap_interval(strata: Sequence[tuple[PairedCounts, float]], *, seed: int) -> tuple[float, float]:
    """Return the 2.5th and 97.5th percentile of the sum over strata of weight * (gained - lost).

    Items are drawn with replacement. Resampling a stratum's items changes its counts like one multinomial
    draw, so neither time nor memory depends on the number of items. With one stratum of weight 1/n it is the
    plain paired bootstrap.
    """
    rng = np.random.default_rng(seed)
    totals = np.zeros(RESAMPLES)
    for counts, weight in strata:
        shares = np.array([counts.gained, counts.lost, counts.both + counts.neither]) / counts.n
        drawn = rng.multinomial(counts.n, shares, size=RESAMPLES)
        totals += weight * (drawn[:, 0] - drawn[:, 1])
    low, high = np.percentile(totals, (2.5, 97.5))
    return float(low), float(high)


def _by_id(items: Sequence[ItemOutcome], whose: str) -> dict[str, ItemOutcome]:
    found = {item.id: item for item in items}
    if len(found) < len(items):
        twice = [id for id, times in Counter(item.id for item in items).items() if times > 1]
        raise EvaluationError(f"The {whose} has more than one result for {_listed(twice)}; run it again.")
    return found


def _listed(ids: Iterable[str]) -> str:
    ordered = sorted(ids)
    more = f" and {len(ordered) - _LISTED} more" if len(ordered) > _LISTED else ""
    return f"item {', '.join(map(repr, ordered[:_LISTED]))}{more}"
