"""Uncertainty of the demonstration's results over seeds and items of one base, and of several tests."""

from collections.abc import Sequence
from functools import cache
from typing import Literal

import numpy as np
from jaxtyping import Float

from sds_clip.demo.experiment import Outcome
from sds_clip.models.evaluation.estimate import Interval
from sds_clip.models.evaluation.paired import RESAMPLES

RESAMPLING_SEED = 0

Score = Literal["group_match", "group"]


def interval(outcomes: Sequence[Outcome], score: Score, kind: str | None = None) -> Interval:
    """The mean score of one base's runs over the items of a kind, or all, with its 95 % bootstrap interval.

    Every resample draws seeds and, the same for all seeds, items, both with replacement. The interval runs
    from the 2.5th to the 97.5th percentile of the resamples' means. With few seeds it underestimates the
    variation over seeds.

    Raises:
        ValueError: no outcomes, a repeated seed, no item of the kind, or outcomes of different items.
    """
    return _interval(right(outcomes, score, kind))


def difference(
    outcomes: Sequence[Outcome], control: Sequence[Outcome], score: Score, kind: str | None = None
) -> Interval:
    """Variant minus control, paired by seed and item: each resample takes the same of both.

    Raises:
        ValueError: the two have different seeds or different items, or as for `interval`.
    """
    seeds, others = _seeds(outcomes), _seeds(control)
    if seeds != others:
        raise ValueError(f"Seeds {seeds} have no control to pair with; the control has the seeds {others}.")
    _check_items([*outcomes, *control])
    return _interval(right(outcomes, score, kind) - right(control, score, kind))


def holm(ps: Sequence[float]) -> list[float]:
    """Return the p of several tests, each corrected for all of them by Holm's method, in their order."""
    corrected, largest = [0.0] * len(ps), 0.0
    for rank, place in enumerate(sorted(range(len(ps)), key=ps.__getitem__)):
        largest = max(largest, min(1.0, (len(ps) - rank) * ps[place]))
        corrected[place] = largest
    return corrected


def right(
    outcomes: Sequence[Outcome], score: Score, kind: str | None = None
) -> Float[np.ndarray, "seeds items"]:
    """1 where a run has an item of a kind, or of all, right, else 0; seeds in ascending order."""
    _seeds(outcomes)
    _check_items(outcomes)
    chosen = np.array([kind in (None, name) for name in outcomes[0].measured.kinds], dtype=bool)
    if not chosen.any():
        raise ValueError(f"No item is of the kind {kind!r}.")
    rows = [getattr(outcome.measured, score) for outcome in _ordered(outcomes)]
    return np.array(rows, dtype=np.float64)[:, chosen]


def _interval(values: Float[np.ndarray, "seeds items"]) -> Interval:
    low, high = np.percentile(_resampled_means(values), (2.5, 97.5))
    return Interval(float(values.mean()), float(low), float(high))


def _resampled_means(values: Float[np.ndarray, "seeds items"]) -> Float[np.ndarray, "_resamples"]:
    """The mean of every resample: sum over s, n of (draws of seed s) (draws of item n) value / (s n)."""
    seeds, items = _times_drawn(*values.shape)
    totals = ((items @ values.T) * seeds).sum(axis=1)
    return np.asarray(totals / values.size)


@cache
def _times_drawn(
    seeds: int, items: int
) -> tuple[Float[np.ndarray, "resamples seeds"], Float[np.ndarray, "resamples items"]]:
    """How often each resample draws each seed and each item; deterministic for given counts.

    Float32 holds the counts and their sums exactly, so a matrix product does the resampling.
    """
    rng = np.random.default_rng(RESAMPLING_SEED)
    drawn = [rng.multinomial(n, np.full(n, 1 / n), size=RESAMPLES) for n in (seeds, items)]
    return drawn[0].astype(np.float32), drawn[1].astype(np.float32)


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
