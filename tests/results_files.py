"""Reads the file of a run back, for tests that work on what it says."""

import json
from pathlib import Path
from typing import Any

from models.evaluation.results import ImageRegion, ItemOutcome, Metric, Results


def read_results(path: Path) -> Results:
    content = json.loads(path.read_text())
    assert content["format"] == 1
    return Results(
        benchmark=content["benchmark"],
        primary=content["primary"],
        macro_tags=tuple(content["macro_tags"]),
        outcome=content["outcome"],
        metrics={name: Metric(**metric) for name, metric in content["metrics"].items()},
        by_tag={
            tag: {name: Metric(**metric) for name, metric in metrics.items()}
            for tag, metrics in content["by_tag"].items()
        },
        items=tuple(_item(record) for record in content["items"]),
        provenance=content["provenance"],
    )


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
