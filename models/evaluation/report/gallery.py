"""The items worth looking at, and their images made small enough to stand inside a page."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from PIL import Image

from models.evaluation.results import ImageRegion, ItemOutcome, Results
from models.images import ImageError, decode_image

SHOWN = 9
"""Items of a gallery; with at most IMAGES each this bounds the page's size."""
IMAGES = 4
SIDE = 320
"""The longer side of a picture in pixels, at most."""

Pair = tuple[ItemOutcome | None, ItemOutcome]
"""An item before, where there is a baseline, and after."""


def galleries(results: Results, baseline: Results | None, *, same_scale: bool) -> dict[str, list[Pair]]:
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
    return {title: pairs for title, pairs in zip(titles, chosen, strict=True) if pairs}


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


@dataclass(frozen=True)
class Picture:
    """A WebP as a data URI, without any metadata of its file, and its size in pixels."""

    uri: str
    width: int
    height: int


def pictures_of(regions: Iterable[ImageRegion]) -> dict[ImageRegion, Picture]:
    """A picture of each region, cut to its box; a file that cannot be read (any more) has none."""
    found = ((region, _picture(region)) for region in dict.fromkeys(regions))
    return {region: picture for region, picture in found if picture is not None}


def _picture(region: ImageRegion) -> Picture | None:
    try:
        image = decode_image(region.path.read_bytes(), orient=False)
    except (OSError, ImageError):
        return None
    return _encoded(image.crop(_corners(region.box, image)) if region.box else image)


def _corners(box: tuple[int, int, int, int], image: Image.Image) -> tuple[int, int, int, int]:
    """Left, top, right and bottom inside the image; the whole image where the box lies outside."""
    left, top = max(0, box[0]), max(0, box[1])
    right, bottom = min(image.width, box[0] + box[2]), min(image.height, box[1] + box[3])
    return (left, top, right, bottom) if left < right and top < bottom else (0, 0, *image.size)


def _encoded(image: Image.Image) -> Picture:
    image.thumbnail((SIDE, SIDE))
    image.info.clear()  # some versions of Pillow write a colour profile along
    encoded = io.BytesIO()
    image.save(encoded, format="WEBP", quality=75)
    uri = f"data:image/webp;base64,{base64.b64encode(encoded.getvalue()).decode()}"
    return Picture(uri, image.width, image.height)
