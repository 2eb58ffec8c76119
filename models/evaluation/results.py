"""What a benchmark says of a model: metrics with their intervals, and every item's outcome; as JSON, one file a run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from models.atomic import write_atomic

FORMAT = 1
"""Of the files."""

GROUP_MATCH = "group_match"
"""GroupMatch, which 2 x 2 benchmarks have: the name of the metric, and of the items' outcome."""


@dataclass(frozen=True)
class Metric:
    """A share in [0, 1] over `n` items, its 95 % interval, and how many of them were ties (counted as wrong).

    `chance` is the share that random scores reach, and `outcome` the outcome of the items that this is a share of; a
    mean over tags has none. `d_prime` stands beside GroupMatch alone: the mean of its margins over their standard
    deviation, None where all are equal.
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
    """

    benchmark: str
    primary: str
    outcome: str
    metrics: dict[str, Metric]
    by_tag: dict[str, dict[str, Metric]]
    items: tuple[ItemOutcome, ...]
    provenance: dict[str, Any] = field(default_factory=dict)
    macro_tags: tuple[str, ...] = ()


def write_results(path: Path, results: Results) -> None:
    """Write a file that is whole or not there."""
    write_json(path, as_json(results))


def as_json(results: Results, *, items: bool = True) -> dict[str, Any]:
    """What the file holds, with or without every item's outcome."""
    content: dict[str, Any] = {
        "format": FORMAT,
        "benchmark": results.benchmark,
        "primary": results.primary,
        "macro_tags": results.macro_tags,
        "outcome": results.outcome,
        "metrics": _metrics_as_json(results.metrics),
        "by_tag": {tag: _metrics_as_json(metrics) for tag, metrics in results.by_tag.items()},
        "provenance": results.provenance,
    }
    if items:
        content["items"] = [_item_as_json(item) for item in results.items]
    return content


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write a file that is whole or not there."""
    # In ASCII: ids and names of files may hold half of a surrogate pair, which UTF-8 has not.
    write_atomic(path, json.dumps(content, indent=1, allow_nan=False) + "\n")


def _metrics_as_json(metrics: Mapping[str, Metric]) -> dict[str, dict[str, Any]]:
    """Without what a metric does not have, such as a d'."""
    return {
        name: {key: value for key, value in asdict(metric).items() if value is not None}
        for name, metric in metrics.items()
    }


def _item_as_json(item: ItemOutcome) -> dict[str, Any]:
    return {
        "id": item.id,
        "correct": item.correct,
        "margins": item.margins,
        "tags": item.tags,
        "images": [{"path": str(region.path), "box": region.box} for region in item.images],
        "captions": item.captions,
    }
