"""Two runs of a small benchmark with pictures on the disk, for the tests of the report."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import PIL.Image

from sds_clip.models.evaluation.results import ItemOutcome, Metric, Results
from sds_clip.models.images.ref import ImageRef

ATTACK = "<script>window.attacked = true</script><img src=x onerror=\"window.attacked = true\"> & 'more'"
COLOURS = ((220, 30, 30), (30, 60, 220))
BEFORE = (-0.20, -0.15, 0.05, 0.10, -0.30, 0.02, -0.05, 0.00)
AFTER = (0.10, 0.20, -0.25, 0.15, -0.10, 0.01, -0.35, 0.00)
"""Margins by item: 0 and 1 are gained, 2 is lost; 4 rose and 6 fell without turning; 7 is a tie."""


def two_runs(folder: Path) -> tuple[Results, Results]:
    """The baseline and the model. Item 3 holds text that attacks, item 5 a file that is not there."""
    pictures = [folder / f"{number}.png" for number in range(2 * len(BEFORE))]
    for number, picture in enumerate(pictures):
        if number != 10:
            half_and_half(picture)
    runs = []
    for name, margins in (("base", BEFORE), ("distilled", AFTER)):
        items = tuple(
            _item(number, margin, pictures[2 * number : 2 * number + 2])
            for number, margin in enumerate(margins)
        )
        metrics = {"text_score": _metric(items, "text"), "group_score": _metric(items, "group")}
        provenance = {"model": name, "data_hash": "77ab", "scorer": "clip", "settings": {"seed": 0}}
        by_tag = {
            tag: {"group_score": _metric([item for item in items if tag in item.tags], "group")}
            for tag in ("Object", "Relation")
        }
        runs.append(Results("winoground", "group_score", "group", metrics, by_tag, items, provenance))
    return runs[0], runs[1]


def attacked(results: Results) -> Results:
    """The run with markup wherever a data set or a caller can put text."""
    item = results.items[0]
    items = (replace(item, id=ATTACK, captions=(ATTACK, ATTACK), tags=(ATTACK,)), *results.items[1:])
    return replace(
        results,
        benchmark=ATTACK,
        items=items,
        metrics={**results.metrics, ATTACK: results.metrics["text_score"]},
        by_tag={ATTACK: results.by_tag["Object"]},
        provenance={**results.provenance, "model": ATTACK, ATTACK: [ATTACK], "settings": {ATTACK: ATTACK}},
    )


def half_and_half(file: Path) -> None:
    """A picture of 600 x 400 pixels, red on the left and blue on the right."""
    picture = PIL.Image.new("RGB", (600, 400), COLOURS[0])
    picture.paste(COLOURS[1], (300, 0, 600, 400))
    picture.save(file)


def _item(number: int, margin: float, pictures: Sequence[Path]) -> ItemOutcome:
    margins = {"text": margin + 0.1, "group": margin}
    return ItemOutcome(
        id=f"item-{number}",
        correct={name: value > 0 for name, value in margins.items()},
        margins=margins,
        tags=("Object" if number % 2 else "Relation",),
        images=(ImageRef(pictures[0], (0, 0, 300, 400)), ImageRef(pictures[1], (300, 100, 300, 200))),
        captions=(f"red {number}", f"blue {number}"),
    )


def _metric(items: Sequence[ItemOutcome], outcome: str) -> Metric:
    share = sum(item.correct[outcome] for item in items) / len(items)
    ties = sum(item.margins[outcome] == 0 for item in items)
    return Metric(share, max(0.0, share - 0.2), min(1.0, share + 0.2), len(items), ties)
