"""The distribution of the items' score margins: how far they are from right and wrong."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sds_clip.models.evaluation.report.content import Run
from sds_clip.models.evaluation.results import Results

BINS = 24
QUANTILES = {"least": 0, "25 %": 25, "median": 50, "75 %": 75, "most": 100}


@dataclass(frozen=True)
class Histogram:
    """Equal bins with each run's counts, and quantiles of all of a run's margins. One edge is 0.

    The bins span all but the lowest and the highest hundredth, which are counted in the outermost bins.
    """

    edges: list[float]
    counts: dict[str, list[int]]
    quantiles: dict[str, list[float]]
    some_below: bool
    some_above: bool


def histogram(outcome: str, runs: Sequence[Run]) -> Histogram | None:
    """Return the histogram of an outcome's margins, or None if a run has no finite margin."""
    found = {series: _margins(run, outcome) for series, run in runs}
    if not all(found.values()):
        return None
    pooled = np.concatenate([*found.values()])
    edges = bin_edges(*(float(end) for end in np.percentile(pooled, (1, 99), method="closest_observation")))
    return Histogram(
        edges=edges,
        counts={series: bin_counts(values, edges) for series, values in found.items()},
        quantiles={
            series: np.percentile(values, [*QUANTILES.values()]).tolist() for series, values in found.items()
        },
        some_below=bool(pooled.min() < edges[0]),
        some_above=bool(pooled.max() > edges[-1]),
    )


def bin_edges(low: float, high: float) -> list[float]:
    """Return edges of equal bins from low to high, extended so that 0 is an edge."""
    low, high = min(0.0, low), max(0.0, high)
    step = (high - low) / BINS or 1.0
    first, last = int(np.floor(low / step + 1e-9)), int(np.ceil(high / step - 1e-9))
    # At least one bin on either side of 0, so that both "wrong" and "right" are shown.
    return [step * place for place in range(min(first, -1), max(last, 1) + 1)]


def bin_counts(values: Sequence[float], edges: Sequence[float]) -> list[int]:
    """Count the values in each bin. Bins include their upper edge, so that a tie, at 0, counts as wrong.

    Values beyond the edges are in the outermost bins.
    """
    # Negated, because numpy's bins include their lower edge.
    inside = np.clip(values, edges[0], edges[-1])
    counts: list[int] = np.histogram(-inside, -np.array(edges)[::-1])[0][::-1].tolist()
    return counts


def _margins(run: Results, outcome: str) -> list[float]:
    values = (item.margins.get(outcome, math.nan) for item in run.items)
    return [value for value in values if math.isfinite(value)]
