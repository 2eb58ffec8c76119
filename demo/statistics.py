"""Uncertainty of the demonstration's results: intervals over seeds and items, differences from a control."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Literal

import numpy as np
from jaxtyping import Float
from scipy.stats import t as student

from demo.experiment import Outcome
from models.evaluation.paired import RESAMPLES, PairedCounts, mcnemar

RESAMPLING_SEED = 0

Score = Literal["group_match", "group", "text", "image"]
Share = Literal["retrieval", "zero_shot"]


@dataclass(frozen=True)
class Interval:
    """A mean over seeds and items, and its 95 % interval."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Difference:
    """Variant minus control, and two two-sided p-values for no difference."""

    interval: Interval
    p: float
    """By the bootstrap; at least 2 / (RESAMPLES + 1)."""
    mcnemar_p: float
    """By exact McNemar tests: the largest over seeds; 1 if their differences have both signs."""


@dataclass(frozen=True)
class Estimate:
    """A mean difference over bases, seeds and items; see `estimate`."""

    mean: float
    standard_error: float
    degrees_of_freedom: int

    @property
    def p(self) -> float:
        """Two-sided, for no difference."""
        if self.standard_error == 0:
            return float(self.mean == 0)
        return float(2 * student.sf(abs(self.mean) / self.standard_error, self.degrees_of_freedom))

    def interval(self, level: float = 0.95) -> Interval:
        half = student.ppf((1 + level) / 2, self.degrees_of_freedom) * self.standard_error
        return Interval(self.mean, self.mean - half, self.mean + half)


@dataclass(frozen=True)
class Change:
    """A share minus the base's, in points: the mean over seeds, and each seed's in order."""

    mean: float
    seeds: list[float]


def seed_means(outcomes: Sequence[Outcome], score: Score, kind: str | None = None) -> list[float]:
    """Each seed's mean score over the items of a kind, or all; seeds in ascending order."""
    means: list[float] = _right(outcomes, score, kind).mean(axis=1, dtype=np.float64).tolist()
    return means


def interval(outcomes: Sequence[Outcome], score: Score, kind: str | None = None) -> Interval:
    """A variant's mean score over the items of a kind, or all, with its bootstrap interval.

    Every resample draws seeds and, the same for all seeds, items, both with replacement. The interval runs
    from the 2.5th to the 97.5th percentile of the resamples' means. With few seeds it underestimates the
    variation over seeds, so report each seed too.

    Raises:
        ValueError: no outcomes, a repeated seed, no item of the kind, or outcomes of different items.
    """
    right = _right(outcomes, score, kind)
    return _interval(right, _resampled_means(right))


def difference(
    outcomes: Sequence[Outcome], control: Sequence[Outcome], score: Score = "group", kind: str | None = None
) -> Difference:
    """Variant minus control, paired by seed and item: each resample takes the same of both.

    p = 2 min(P(difference <= 0), P(difference >= 0)) over the resamples, with one added to each count. The
    bootstrap covers seeds and items together, McNemar's test one seed's items at a time.

    Raises:
        ValueError: the two have different seeds or different items, or as for `interval`.
    """
    seeds, others = _seeds(outcomes), _seeds(control)
    if seeds != others:
        raise ValueError(f"Seeds {seeds} have no control to pair with; the control has the seeds {others}.")
    _check_items([*outcomes, *control])
    delta = _right(outcomes, score, kind) - _right(control, score, kind)
    means = _resampled_means(delta)
    tail = min(int((means <= 0).sum()), int((means >= 0).sum()))
    p = min(1.0, 2 * (tail + 1) / (RESAMPLES + 1))
    return Difference(_interval(delta, means), p, _mcnemar(delta))


def estimate(differences: Float[np.ndarray, "bases seeds items"]) -> Estimate:
    """The mean of paired differences, with bases and items as samples, both of which a result should hold for.

    The squared standard error is the sum of that over the bases' means and that over the items' means. It counts the
    noise that is of both twice, so it is rather too large. With one item, as for a share, there is only the first.

    Raises:
        ValueError: there are fewer than two bases.
    """
    bases, _, items = differences.shape
    if bases < 2:
        raise ValueError("A standard error needs at least two bases.")
    squared = differences.mean(axis=(1, 2)).var(ddof=1) / bases
    if items > 1:
        squared += differences.mean(axis=(0, 1)).var(ddof=1) / items
    return Estimate(float(differences.mean()), float(squared**0.5), bases - 1)


def holm(ps: Sequence[float]) -> list[float]:
    """Return the p of several tests, each corrected for all of them by Holm's method, in their order."""
    corrected, largest = [0.0] * len(ps), 0.0
    for rank, place in enumerate(sorted(range(len(ps)), key=ps.__getitem__)):
        largest = max(largest, min(1.0, (len(ps) - rank) * ps[place]))
        corrected[place] = largest
    return corrected


def change(outcomes: Sequence[Outcome], base: Outcome, share: Share) -> Change:
    """The difference of a share from the base's, in points.

    Raises:
        ValueError: the base was measured on other items.
    """
    _check_items([*outcomes, base])
    before: float = getattr(base.measured, share)
    points = [100 * (getattr(outcome.measured, share) - before) for outcome in _ordered(outcomes)]
    return Change(sum(points) / len(points), points)


def _interval(values: Float[np.ndarray, "s n"], means: Float[np.ndarray, "resamples"]) -> Interval:
    low, high = np.percentile(means, (2.5, 97.5))
    return Interval(float(values.mean(dtype=np.float64)), float(low), float(high))


def _resampled_means(values: Float[np.ndarray, "s n"]) -> Float[np.ndarray, "resamples"]:
    """The mean of every resample: sum over s, n of (draws of seed s) (draws of item n) value / (s n)."""
    seeds, items = _times_drawn(*values.shape)
    totals = ((items @ values.T) * seeds).sum(axis=1)
    return np.asarray(totals / values.size)


@cache
def _times_drawn(
    seeds: int, items: int
) -> tuple[Float[np.ndarray, "resamples s"], Float[np.ndarray, "resamples n"]]:
    """How often each resample draws each seed and each item; deterministic for given counts.

    Float32 holds the counts and their sums exactly, so a matrix product does the resampling.
    """
    rng = np.random.default_rng(RESAMPLING_SEED)
    drawn = [rng.multinomial(n, np.full(n, 1 / n), size=RESAMPLES) for n in (seeds, items)]
    return drawn[0].astype(np.float32), drawn[1].astype(np.float32)


def _mcnemar(delta: Float[np.ndarray, "s n"]) -> float:
    """The largest p of the seeds' exact tests on discordant items; 1 if seeds disagree on the direction."""
    better, worse = (delta > 0).sum(axis=1), (delta < 0).sum(axis=1)
    if (better > worse).any() and (better < worse).any():
        return 1.0
    items = delta.shape[1]
    counts = (
        PairedCounts(0, up, down, items - up - down)
        for up, down in zip(better.tolist(), worse.tolist(), strict=True)
    )
    return max(mcnemar(one)[1] for one in counts)


def _right(outcomes: Sequence[Outcome], score: Score, kind: str | None) -> Float[np.ndarray, "s n"]:
    """1 where a seed has an item right, else 0."""
    _seeds(outcomes)
    _check_items(outcomes)
    chosen = np.array([kind in (None, name) for name in outcomes[0].measured.kinds], dtype=bool)
    if not chosen.any():
        raise ValueError(f"No item is of the kind {kind!r}.")
    rows = [getattr(outcome.measured, score) for outcome in _ordered(outcomes)]
    return np.array(rows, dtype=np.float32)[:, chosen]


def _seeds(outcomes: Sequence[Outcome]) -> list[int]:
    seeds = [outcome.seed for outcome in _ordered(outcomes)]
    if not seeds:
        raise ValueError("There are no outcomes.")
    if len(set(seeds)) < len(seeds):
        raise ValueError(f"A seed occurs twice: {seeds}.")
    return seeds


def _ordered(outcomes: Sequence[Outcome]) -> list[Outcome]:
    return sorted(outcomes, key=lambda outcome: outcome.seed)


def _check_items(outcomes: Sequence[Outcome]) -> None:
    first = outcomes[0]
    if any((o.split, o.measured.kinds) != (first.split, first.measured.kinds) for o in outcomes):
        raise ValueError("The outcomes are not of the same items.")
