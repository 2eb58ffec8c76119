"""A job's curves: its metrics as columns, thinned so that every extreme stays visible.

A curve is cut into buckets of equally many points. Of each bucket, the least and the greatest value stay, and one that
is missing, because it was not finite. The first and the last point of the curve stay too (decision 70).
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic_core import from_json

from app.schemas.curves import MIN_POINTS, Curve, CurvePoint
from app.store.job_events import MAX_TEXTS

_ABSENT = float("inf")  # no stored value is infinite
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Page = Sequence[tuple[int, str]]
"""Steps, and the JSON of their values by name."""


def curves_of(read: Callable[[int], Page], names: Collection[str], points: int) -> dict[str, Curve]:
    """The curves with these names, or all, each of at most `points` points.

    `read` returns at most MAX_TEXTS rows from a step on, as `JobEvents.metric_texts` does. They are parsed between the
    database's transactions, a few at a time, so that other threads can go on.
    """
    parts: dict[str, list[tuple[Ints, Floats]]] = {}
    for rows in _pages(read):
        steps = np.array([step for step, _ in rows], np.int64)
        values: list[dict[str, float | None]] = from_json(f"[{','.join(text for _, text in rows)}]")
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


def _pages(read: Callable[[int], Page]) -> Iterator[Page]:
    start = 0
    while rows := read(start):
        yield rows
        if len(rows) < MAX_TEXTS:
            return
        start = rows[-1][0] + 1


def _thinned(parts: Sequence[tuple[Ints, Floats]], points: int) -> Curve:
    steps = np.concatenate([each for each, _ in parts])
    values = np.concatenate([each for _, each in parts])
    kept = thin(values, points)
    shown = [None if np.isnan(value) else value for value in values[kept].tolist()]
    return Curve(
        steps=steps[kept].tolist(),
        values=shown,
        count=len(values),
        last=CurvePoint(step=int(steps[-1]), value=shown[-1]),
    )
