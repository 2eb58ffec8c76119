"""The items worth looking at, with their images and captions."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from models.evaluation.report.pictures import Picture, pictures_of
from models.evaluation.report.words import margin, shortened
from models.evaluation.results import ImageRegion, ItemOutcome, Results

SHOWN = 9
"""Items of a gallery; with at most IMAGES each this bounds the page's size."""
IMAGES = 4
CAPTIONS = 8
_LONGEST_CAPTION = 400
_LONGEST_NAME = 80

Pair = tuple[ItemOutcome | None, ItemOutcome]
"""An item before, where there is a baseline, and after."""


@dataclass(frozen=True)
class Shown:
    """An image of a card: what stands for it where it cannot be seen, and the picture if there still is one."""

    alt: str
    picture: Picture | None


@dataclass(frozen=True)
class Card:
    """One item. A margin is printed with whether it makes the item right."""

    id: str
    tags: str
    verdicts: list[tuple[str, str, bool]]
    images: list[Shown]
    more_images: int
    captions: list[str]
    more_captions: int


@dataclass(frozen=True)
class Gallery:
    """Some items under a title."""

    title: str
    cards: list[Card]


def galleries(results: Results, baseline: Results | None, *, same_scale: bool) -> list[Gallery]:
    """Most improved and most worsened; without a baseline, furthest from right and most clearly right.

    An item that turned right (or wrong) comes before one whose margin only grew (or fell). Margins on two scales
    (of two scorers) are not subtracted: then there are only the items that turned.
    """
    outcome = results.outcome
    pairs = _pairs(results, baseline)

    def change(pair: Pair) -> tuple[float, float]:
        before, after = pair
        if before is None:
            return 0.0, after.margins[outcome]
        turned = float(after.correct[outcome]) - float(before.correct[outcome])
        return turned, after.margins[outcome] - before.margins[outcome] if same_scale else 0.0

    chosen = _best(pairs, change), _best(pairs, lambda pair: (-change(pair)[0], -change(pair)[1]))
    titles = ("Most improved items", "Most worsened items")
    if baseline is None:
        chosen, titles = chosen[::-1], ("Items furthest from right", "Items most clearly right")
    pictures = pictures_of(region for pairs in chosen for _, item in pairs for region in item.images[:IMAGES])
    found = [
        Gallery(title, [_card(pair, outcome, pictures) for pair in pairs])
        for title, pairs in zip(titles, chosen, strict=True)
    ]
    return [gallery for gallery in found if gallery.cards]


def _pairs(results: Results, baseline: Results | None) -> list[Pair]:
    """The items whose margins can be ranked."""
    before = {item.id: item for item in baseline.items} if baseline else {}
    pairs = [(before.get(item.id), item) for item in results.items]
    return [
        pair
        for pair in pairs
        if all(math.isfinite(item.margins.get(results.outcome, math.nan)) for item in pair if item)
        and (pair[0] is not None or baseline is None)
    ]


def _best(pairs: Sequence[Pair], rank: Callable[[Pair], tuple[float, float]]) -> list[Pair]:
    """The highest ranked, of those that rank above nothing at all; equals in their own order."""
    above = [pair for pair in pairs if rank(pair) > (0.0, 0.0)]
    return sorted(above, key=rank, reverse=True)[:SHOWN]


def _card(pair: Pair, outcome: str, pictures: dict[ImageRegion, Picture]) -> Card:
    before, after = pair
    sides = [("baseline", before), ("model", after)]
    return Card(
        id=shortened(after.id, _LONGEST_NAME),
        tags=shortened(", ".join(after.tags), _LONGEST_CAPTION),
        verdicts=[
            (series, margin(item.margins[outcome]), item.correct[outcome]) for series, item in sides if item
        ],
        images=[
            Shown(_alt(after, place), pictures.get(region))
            for place, region in enumerate(after.images[:IMAGES])
        ],
        more_images=max(0, len(after.images) - IMAGES),
        captions=[shortened(caption, _LONGEST_CAPTION) for caption in after.captions[:CAPTIONS]],
        more_captions=max(0, len(after.captions) - CAPTIONS),
    )


def _alt(item: ItemOutcome, place: int) -> str:
    """Which image it is, and its caption where each image has its own."""
    which = f"Image {place + 1} of {len(item.images)}, item {shortened(item.id, _LONGEST_NAME)}"
    if len(item.captions) == len(item.images) > 1:
        return f"{which}: {shortened(item.captions[place], _LONGEST_CAPTION)}"
    return which
