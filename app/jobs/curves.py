"""A job's curves: its metrics as columns, thinned so that every extreme stays visible.

A curve is cut into buckets of equally many points. Of each bucket, the least and the greatest value stay, and one that
is missing, because it was not finite. The first and the last point of the curve stay too (decision 70).
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic_core import from_json

from sds_clip.app.schemas.curves import MIN_POINTS, Curve, CurvePoint
from sds_clip.app.store.job_events import MetricTexts

_ABSENT = float("inf")  # no stored value is infinite
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Read = Callable[[int], MetricTexts | None]
"""Reads a page of metrics from a step on, as `JobEvents.metric_texts` does. None is the end."""


def curves_of(read: Read, names: Collection[str], points: int) -> dict[str, Curve]:
    """The curves with these names, or all, each of at most `points` points.

    Each page is parsed after its transaction, and is short enough that other threads go on meanwhile.
    """
    parts: dict[str, list[tuple[Ints, Floats]]] = {}
    for page in _pages(read):
        steps = np.array(from_json(f"[{page.steps}]"), np.int64)
        values: list[dict[str, float | None]] = from_json(f"[{page.values}]")
        found = set[str]().union(*values)
        for name in sorted(found.intersection(names) if names else found):
            column = np.array([each.get(name, _ABSENT) for each in values], np.float64)
            is_there = column != _ABSENT
            parts.setdefault(name, []).append((steps[is_there], column[is_there]))
    return {name: _thinned(found, points) for name, found in parts.items()}


def thin(values: Floats, points: int) -> Ints:
    """The places of at most `points` of the values, in order. `points` is at least MIN_POINTS."""
    assert points >= MIN_POINTS
    count = len(values)
    if count <= points:
        return np.arange(count)
    missing = np.isnan(values)
    buckets = (points - 2) // (3 if missing.any() else 2)
    width = -(-count // buckets)

    def bucketed(of: NDArray[Any], fill: float) -> NDArray[Any]:
        return np.pad(of, (0, -count % width), constant_values=fill).reshape(-1, width)

    starts = np.arange(0, count, width)
    least = bucketed(np.where(missing, np.inf, values), np.inf).argmin(axis=1)
    greatest = bucketed(np.where(missing, -np.inf, values), -np.inf).argmax(axis=1)
    gaps = bucketed(missing, False)
    has_gap = gaps.any(axis=1)
    return np.unique(
        np.concatenate(
            [[0, count - 1], starts + least, starts + greatest, (starts + gaps.argmax(axis=1))[has_gap]]
        )
    )


def _pages(read: Read) -> Iterator[MetricTexts]:
    start = 0
    while (page := read(start)) is not None:
        yield page
        start = page.last_step + 1


def _thinned(parts: Sequence[tuple[Ints, Floats]], points: int) -> Curve:
    steps = np.concatenate([each for each, _ in parts])
    order = steps.argsort()
    steps, values = steps[order], np.concatenate([each for _, each in parts])[order]
    kept = thin(values, points)
    shown = [None if np.isnan(value) else value for value in values[kept].tolist()]
    return Curve(
        steps=steps[kept].tolist(),
        values=shown,
        count=len(values),
        last=CurvePoint(step=int(steps[-1]), value=shown[-1]),
    )
