"""Results as JSON: one file a run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from models.atomic import write_atomic
from models.evaluation.comparison import Comparison
from models.evaluation.errors import EvaluationError
from models.evaluation.json_files import read_json
from models.evaluation.results import ImageRegion, ItemOutcome, Metric, Results

FORMAT = 1
_LAYOUT = "results as `sds-clip evaluate --out` writes them"


def write_results(path: Path, results: Results) -> None:
    """Write a file that is whole or not there."""
    _write(path, as_json(results))


def write_comparison(path: Path, comparison: Comparison) -> None:
    """Write every outcome's difference, over all items and by tag; whole or not there."""
    _write(path, {"format": FORMAT, **asdict(comparison)})


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


def read_results(path: Path) -> Results:
    """Read a file that `write_results` wrote.

    Raises:
        EvaluationError: it is missing, or is something else.
    """
    content = read_json(path, _LAYOUT)
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise EvaluationError(f"{path}: must be {_LAYOUT}, format {FORMAT}.")
    try:
        return Results(
            benchmark=content["benchmark"],
            primary=content["primary"],
            macro_tags=None if content.get("macro_tags") is None else tuple(content["macro_tags"]),
            outcome=content["outcome"],
            metrics={name: Metric(**metric) for name, metric in content["metrics"].items()},
            by_tag={
                tag: {name: Metric(**metric) for name, metric in metrics.items()}
                for tag, metrics in content["by_tag"].items()
            },
            items=tuple(_item(record) for record in content["items"]),
            provenance=content["provenance"],
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise EvaluationError(f"{path}: must be {_LAYOUT}; {type(error).__name__}: {error}.") from error


def _write(path: Path, content: dict[str, Any]) -> None:
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


def _item(record: dict[str, Any]) -> ItemOutcome:
    return ItemOutcome(
        id=record["id"],
        correct=record["correct"],
        margins={name: float(margin) for name, margin in record["margins"].items()},
        tags=tuple(record["tags"]),
        images=tuple(
            ImageRegion(Path(image["path"]), None if image["box"] is None else tuple(image["box"]))
            for image in record["images"]
        ),
        captions=tuple(record["captions"]),
    )
