"""How far from right and wrong the items are: the distribution of their score margins."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup

from models.evaluation.report.charts import histogram
from models.evaluation.report.words import margin
from models.evaluation.results import Results

QUANTILES = (("least", 0), ("25 %", 25), ("median", 50), ("75 %", 75), ("most", 100))


@dataclass(frozen=True)
class MarginChart:
    """A histogram, and a table of the same distributions."""

    drawing: Markup
    tallest: int
    series: list[str]
    rows: list[tuple[str, list[str]]]


def margin_chart(outcome: str, runs: Sequence[tuple[str, Results]]) -> MarginChart | None:
    """The margins of an outcome for each run; None where a run has none that is finite."""
    found = [(series, _margins(run, outcome)) for series, run in runs]
    if not all(values for _, values in found):
        return None
    places = [at for _, at in QUANTILES]
    ends = [[margin(float(end)) for end in np.percentile(values, places)] for _, values in found]
    medians = ", ".join(f"{series} {cells[2]}" for (series, _), cells in zip(found, ends, strict=True))
    drawing, tallest = histogram(
        found, label=f"Histogram of score margins; medians: {medians}. The table below has more."
    )
    rows = [(name, [cells[row] for cells in ends]) for row, (name, _) in enumerate(QUANTILES)]
    return MarginChart(drawing, tallest, [series for series, _ in found], rows)


def _margins(run: Results, outcome: str) -> list[float]:
    values = (item.margins.get(outcome, math.nan) for item in run.items)
    return [value for value in values if math.isfinite(value)]
