"""What a benchmark says of a model: metrics with their intervals, and every item's outcome."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

GROUP_MATCH = "group_match"
"""GroupMatch, which 2 x 2 benchmarks have: the name of the metric, and of the items' outcome."""


@dataclass(frozen=True)
class Metric:
    """A share in [0, 1] over `n` items, its 95 % interval, and how many of them were ties (counted as wrong).

    `chance` is the share that random scores reach, and `outcome` the outcome of the items that this is a share of;
    files that were written before these were recorded have neither. `d_prime` stands beside GroupMatch alone: the
    mean of its margins over their standard deviation, None where all are equal.
    """

    value: float
    low: float
    high: float
    n: int
    ties: int = 0
    chance: float | None = None
    outcome: str | None = None
    d_prime: float | None = None


@dataclass(frozen=True)
class ImageRegion:
    """An image file, and the box of it that is meant: left, top, width, height in pixels."""

    path: Path
    box: tuple[int, int, int, int] | None = None


@dataclass(frozen=True)
class ItemOutcome:
    """One item, what was right of it, and by how much.

    `correct` and `margins` have the same names, such as text, image and group; a margin is the least of the score
    differences that must be above zero (GroupMatch's is their sum), so that it is right where its margin is positive.
    """

    id: str
    correct: dict[str, bool]
    margins: dict[str, float]
    tags: tuple[str, ...] = ()
    images: tuple[ImageRegion, ...] = ()
    captions: tuple[str, ...] = ()


@dataclass(frozen=True)
class Results:
    """One run of one benchmark with one model.

    `metrics[primary]` is the figure that two models are compared by, and `items[i].correct[outcome]` the outcome of
    each item that it is a mean of. `provenance` says what the figures depend on: model, data hash, code version,
    precision, seed, scorer.

    `macro_tags` are the tags that the primary figure is the plain mean over, none where it is the mean over items.
    It is None in results of a version that did not record it.
    """

    benchmark: str
    primary: str
    outcome: str
    metrics: dict[str, Metric]
    by_tag: dict[str, dict[str, Metric]]
    items: tuple[ItemOutcome, ...]
    provenance: dict[str, Any] = field(default_factory=dict)
    macro_tags: tuple[str, ...] | None = None
