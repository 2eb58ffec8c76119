"""The most interesting items, and their images made small enough for the page."""

import math
from collections.abc import Callable, Iterable, Sequence

from sds_clip.models.evaluation.results import ItemOutcome, Results
from sds_clip.models.images.decode import ImageError, decode_image
from sds_clip.models.images.files import ImageFileError
from sds_clip.models.images.ref import ImageRef
from sds_clip.models.images.thumbnails import Picture, cropped, thumbnail

SHOWN = 9
"""Items in a gallery. With at most IMAGES images each, this bounds the page's size."""
IMAGES = 4

Pair = tuple[ItemOutcome | None, ItemOutcome]
"""An item's outcome in the baseline, if there is one, and in the model."""


def galleries(results: Results, baseline: Results | None, *, same_scale: bool) -> dict[str, list[Pair]]:
    """Return the most improved and most worsened items.

    Without a baseline, return the items that are most clearly wrong and most clearly right. An item that became
    right (or wrong) comes before one whose margin only grew (or fell). If the two runs have different scorers,
    their margins have different scales and are not subtracted; then only items that became right or wrong are shown.
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
        chosen, titles = chosen[::-1], ("Items most clearly wrong", "Items most clearly right")
    return {title: pairs for title, pairs in zip(titles, chosen, strict=True) if pairs}


def _pairs(results: Results, baseline: Results | None) -> list[Pair]:
    before = {item.id: item for item in baseline.items} if baseline else {}
    pairs = [(before.get(item.id), item) for item in results.items]
    return [
        pair
        for pair in pairs
        if all(math.isfinite(item.margins.get(results.outcome, math.nan)) for item in pair if item)
        and (pair[0] is not None or baseline is None)
    ]


def _best(pairs: Sequence[Pair], rank: Callable[[Pair], tuple[float, float]]) -> list[Pair]:
    """Return the highest ranked of those that rank above zero; equals keep their order."""
    above = [pair for pair in pairs if rank(pair) > (0.0, 0.0)]
    return sorted(above, key=rank, reverse=True)[:SHOWN]


def pictures_of(regions: Iterable[ImageRef]) -> dict[ImageRef, Picture]:
    """Return a picture of each region, cropped to its box. A file that cannot be read (any more) has none."""
    found = ((region, _picture(region)) for region in dict.fromkeys(regions))
    return {region: picture for region, picture in found if picture is not None}


def _picture(region: ImageRef) -> Picture | None:
    try:
        image = decode_image(region.read(), orient=False)
    except (ImageFileError, ImageError):
        return None
    return thumbnail(cropped(image, region.box) if region.box else image)
