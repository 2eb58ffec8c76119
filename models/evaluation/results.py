"""Results of a benchmark: metrics with intervals, and every item's outcome, as JSON, one file per run."""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from sds_clip.models.atomic import write_atomic
from sds_clip.models.errors import EvaluationError
from sds_clip.models.images.ref import ImageRef

FORMAT = 1
"""Version of the file format."""

GROUP_MATCH = "group_match"
"""The name of the metric and of the items' outcome; 2 x 2 benchmarks have it."""


@dataclass(frozen=True)
class Metric:
    """A share in [0, 1] over `n` items, its 95 % interval, and how many of them were ties (counted as wrong).

    `chance` is the share that random scores reach. `outcome` names the items' outcome that this is a share
    of; a mean over tags has none. Only GroupMatch has `d_prime`: the mean of its margins over their standard
    deviation, None if all are equal.
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
class ItemOutcome:
    """One item: in which outcomes it is right, and by how much.

    `correct` and `margins` have the same keys, such as text, image and group. A margin is the smallest of the
    score differences that must be above zero (GroupMatch's is their sum). So an outcome is right if its
    margin is positive. Only an item of two images and two captions has `scores`, raw: `scores[caption][image]`.
    """

    id: str
    correct: dict[str, bool]
    margins: dict[str, float]
    tags: tuple[str, ...] = ()
    images: tuple[ImageRef, ...] = ()
    captions: tuple[str, ...] = ()
    scores: tuple[tuple[float, ...], ...] = ()


@dataclass(frozen=True)
class Results:
    """One run of one benchmark with one model.

    `metrics[primary]` is the figure that two models are compared by. It is a mean of
    `items[i].correct[outcome]`: over `macro_tags`, as the plain mean of the tags' means, or over all items if
    there are no such tags. `provenance` says what the figures depend on: model, data hash, code version,
    precision, seed, scorer.
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
    """Write the results to a file, whole or not at all."""
    write_json(path, as_json(results))


def read_results(path: Path) -> Results:
    """Read what `write_results` wrote.

    The items are decoded one at a time, so that the other threads of a server go on meanwhile.

    Raises:
        EvaluationError: the file is missing, damaged, or of another format.
    """
    try:
        head, _, items = path.read_text(encoding="utf-8").partition(_ITEMS)
        content = json.loads(f"{head.rstrip().rstrip(',')}}}")
        if content["format"] != FORMAT:
            raise EvaluationError(f"{path} has the format {content['format']}; evaluate again.")
        return results_of(content, _records(items))
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        if isinstance(error, EvaluationError):
            raise
        raise EvaluationError(f"{path} is missing or damaged; evaluate again.") from error


def results_of(content: Mapping[str, Any], items: Iterable[Mapping[str, Any]]) -> Results:
    """Return the results that `as_json` wrote without their items, with these. Raises LookupError, TypeError."""
    return Results(
        benchmark=content["benchmark"],
        primary=content["primary"],
        outcome=content["outcome"],
        metrics=_metrics_of(content["metrics"]),
        by_tag={tag: _metrics_of(metrics) for tag, metrics in content["by_tag"].items()},
        items=tuple(map(_item_of, items)),
        provenance=content["provenance"],
        macro_tags=tuple(content["macro_tags"]),
    )


def item_id(benchmark: str, outcome_id: str) -> str:
    """Return the id of the item that an outcome belongs to, of which retrieval has several: its image and its texts."""
    if benchmark != "retrieval":
        return outcome_id
    kind, _, query = outcome_id.partition(" ")
    return query.rpartition("/")[0] if kind == "text" else query


def as_json(results: Results, *, items: bool = True) -> dict[str, Any]:
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
    """Write a JSON file, whole or not at all."""
    # In ASCII: ids and file names may hold half of a surrogate pair, which UTF-8 cannot encode.
    write_atomic(path, json.dumps(content, indent=1, allow_nan=False) + "\n")


def _metrics_as_json(metrics: Mapping[str, Metric]) -> dict[str, dict[str, Any]]:
    """Leave out what a metric does not have, such as d'."""
    return {
        name: {key: value for key, value in asdict(metric).items() if value is not None}
        for name, metric in metrics.items()
    }


def _metrics_of(content: Mapping[str, Any]) -> dict[str, Metric]:
    return {name: Metric(**metric) for name, metric in content.items()}


def _item_of(content: Mapping[str, Any]) -> ItemOutcome:
    return ItemOutcome(
        id=content["id"],
        correct=content["correct"],
        margins={name: float(margin) for name, margin in content["margins"].items()},
        tags=tuple(content["tags"]),
        images=tuple(map(ImageRef.of_json, content["images"])),
        captions=tuple(content["captions"]),
        scores=tuple(tuple(row) for row in content.get("scores") or ()),
    )


def _item_as_json(item: ItemOutcome) -> dict[str, Any]:
    return {
        "id": item.id,
        "correct": item.correct,
        "margins": item.margins,
        "tags": item.tags,
        "images": [{"path": str(image.path), "box": image.box} for image in item.images],
        "captions": item.captions,
        **({"scores": item.scores} if item.scores else {}),
    }


# `write_json` indents the fields of the whole file by one space, and a text holds no line break.
_ITEMS = '\n "items": ['
_NEXT = re.compile(r"[\s,]*(?={)")


def _records(text: str) -> Iterator[dict[str, Any]]:
    decoder, place = json.JSONDecoder(), 0
    while (found := _NEXT.match(text, place)) is not None:
        record, place = decoder.raw_decode(text, found.end())
        yield record
