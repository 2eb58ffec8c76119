"""Small charts as inline SVG. Lengths are shares of the width, so that a chart fits any screen undistorted."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from markupsafe import Markup

from models.evaluation.report.words import margin

Pixels = int | float

BINS = 24
_ROW = 9
_PLOT_TOP, _PLOT_HEIGHT = 22, 150


def share_bar(series: str, value: float, low: float, high: float, *, chance: float | None = None) -> Markup:
    """A bar from 0 to a share in [0, 1], with its interval and a mark at chance; the numbers stand beside it."""
    middle = _ROW + 1
    marks = () if chance is None else (_line("chance", chance, chance, 0, 2 * middle),)
    return _svg(
        2 * middle,
        _rect("track", 0.0, 1.0, y=4, height=12),
        _rect(series, 0.0, value, y=4, height=12),
        *marks,
        *(
            _line(name, left, right, middle - half, middle + half)
            for name in ("halo", "whisker")
            for left, right, half in ((low, high, 0), (low, low, 5), (high, high, 5))
        ),
    )


def two_bars(before: float, after: float) -> Markup:
    """The baseline's share over the model's."""
    return _svg(
        2 * _ROW + 2,
        _rect("track", 0.0, 1.0, y=1, height=2 * _ROW),
        _rect("baseline", 0.0, before, y=1, height=_ROW - 1),
        _rect("model", 0.0, after, y=_ROW + 2, height=_ROW - 1),
    )


def difference_bar(difference: float, low: float, high: float, *, limit: float) -> Markup:
    """A difference with its interval on an axis from -limit to limit."""

    def at(value: float) -> float:
        return (value + limit) / (2 * limit)

    return _svg(
        20,
        _rect("track", 0.0, 1.0, y=4, height=12),
        _line("zero", 0.5, 0.5, 0, 20),
        _line("whisker", at(low), at(high), 10, 10),
        Markup('<circle class="dot" cx="{:.2f}%" cy="10" r="4"/>').format(100 * at(difference)),
    )


def histogram(series: Sequence[tuple[str, Sequence[float]]], *, label: str) -> tuple[Markup, int]:
    """How often values fall into each of about 24 bins, one of whose edges is 0; and the tallest bar's count.

    `series` holds a class name and values for each model; all values are finite and there is at least one. The
    bins span all but the lowest and the highest hundredth, which are counted in the outermost bins.
    """
    pooled = np.concatenate([values for _, values in series])
    edges = bin_edges(*(float(end) for end in np.percentile(pooled, (1, 99), method="closest_observation")))
    counts = [bin_counts(values, edges) for _, values in series]
    tallest = max(max(found) for found in counts)
    width = 1 / (len(edges) - 1)
    bars = [
        _rect(
            series[which][0],
            (place + 0.06 + 0.88 * which / len(series)) * width,
            0.88 * width / len(series),
            y=_PLOT_TOP + _PLOT_HEIGHT * (1 - count / tallest),
            height=_PLOT_HEIGHT * count / tallest,
        )
        for which, found in enumerate(counts)
        for place, count in enumerate(found)
        if count
    ]
    bottom = _PLOT_TOP + _PLOT_HEIGHT
    zero = float(np.clip(-edges[0] / (edges[-1] - edges[0]), 0, 1))
    drawn = _svg(
        bottom + 22,
        *bars,
        _line("axis", 0.0, 1.0, bottom, bottom),
        _line("zero", zero, zero, _PLOT_TOP - 4, bottom),
        _text(zero, 12, "wrong \u25c2 0 \u25b8 right"),
        _text(0.0, bottom + 17, ("\u2264 " if pooled.min() < edges[0] else "") + margin(edges[0])),
        _text(1.0, bottom + 17, ("\u2265 " if pooled.max() > edges[-1] else "") + margin(edges[-1])),
        label=label,
    )
    return drawn, tallest


def bin_edges(low: float, high: float) -> list[float]:
    """Edges of equal bins from low to high and from either to 0, which is an edge."""
    low, high = min(0.0, low), max(0.0, high)
    step = (high - low) / BINS or 1.0
    first, last = int(np.floor(low / step + 1e-9)), int(np.ceil(high / step - 1e-9))
    # At least a bin on either side of 0, so that "wrong" and "right" both have a place.
    return [step * place for place in range(min(first, -1), max(last, 1) + 1)]


def bin_counts(values: Sequence[float], edges: Sequence[float]) -> list[int]:
    """Values in each bin, its upper edge included: a tie, at 0, is with what is wrong.

    Values beyond the edges are in the outermost bins.
    """
    inside = np.clip(values, edges[0], edges[-1])
    counts: list[int] = np.histogram(-inside, -np.array(edges)[::-1])[0][::-1].tolist()
    return counts


def _svg(height: Pixels, *parts: Markup, label: str = "") -> Markup:
    named = Markup('role="img" aria-label="{}"').format(label) if label else Markup('aria-hidden="true"')
    return Markup('<svg width="100%" height="{:g}" {}>{}</svg>').format(height, named, Markup("").join(parts))


def _rect(name: str, left: float, width: float, *, y: Pixels, height: Pixels) -> Markup:
    return Markup('<rect class="{}" x="{:.2f}%" y="{:.1f}" width="{:.2f}%" height="{:.1f}"/>').format(
        name, 100 * left, y, 100 * width, height
    )


def _line(name: str, left: float, right: float, top: Pixels, bottom: Pixels) -> Markup:
    return Markup('<line class="{}" x1="{:.2f}%" x2="{:.2f}%" y1="{:.1f}" y2="{:.1f}"/>').format(
        name, 100 * left, 100 * right, top, bottom
    )


def _text(at: float, y: Pixels, text: str) -> Markup:
    """Text centred at a share of the width, or ending at the edge that it would cross."""
    anchor = "start" if at < 0.2 else "end" if at > 0.8 else "middle"
    return Markup('<text x="{:.2f}%" y="{:g}" text-anchor="{}">{}</text>').format(100 * at, y, anchor, text)
