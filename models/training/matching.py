"""Test-Time Matching (arXiv 2510.07632): pairs out of groups of images and captions that nobody has matched.

A model matches each group by the assignment with the highest sum of cosines. The surest of these matches are pairs to
train on, and the model that learned from them matches again.
"""

import hashlib
import json
from collections.abc import Iterable, Sequence
from functools import cached_property
from itertools import permutations
from math import ceil, fsum
from typing import NamedTuple

import PIL.Image
from jaxtyping import Float
from torch import Tensor

from sds_clip.models.data.pairs import PairSet, Sample
from sds_clip.models.errors import EvaluationError
from sds_clip.models.evaluation.benchmark import Benchmark, check_finite
from sds_clip.models.evaluation.caption_choice import CaptionChoice
from sds_clip.models.evaluation.items import Item, open_region, read_bytes


class Match(NamedTuple):
    """A group with the assignment that a model chose: image k has the caption `order[k]`."""

    item: Item
    order: tuple[int, ...]
    margin: float
    """By how much the sum of its cosines is above that of the next best assignment."""


def groups_of(benchmark: Benchmark) -> list[Item]:
    """Return a benchmark's groups of as many images as captions: its items, or What'sUp's sets of four.

    A set is whole, and its images have the same captions to choose from. Raises EvaluationError if there are none.
    """
    groups = [item for item in benchmark.items if len(item.images) == len(item.captions) > 1]
    if isinstance(benchmark, CaptionChoice):
        of = {item.id: item for item in benchmark.items}
        sets = ([of[id] for id in ids] for ids in benchmark.groups.get("set", ()))
        groups += map(_together, filter(_is_whole, sets))
    if not groups:
        raise EvaluationError(
            f"{benchmark.name} has no groups of images and captions to match; use winoground, colorswap, mmvp-vlm or "
            "whats-up, or data in the format of one."
        )
    return groups


def _is_whole(items: Sequence[Item]) -> bool:
    return all(
        len(items) == len(item.captions) and {*item.captions} == {*items[0].captions} for item in items
    )


def _together(items: Sequence[Item]) -> Item:
    images = tuple(image for item in items for image in item.images)
    return Item(f"set {', '.join(item.id for item in items)}", images, items[0].captions)


def matches(items: Sequence[Item], scores: Iterable[Float[Tensor, "k k"]]) -> list[Match]:
    """Match groups by their scores[caption][image]. Nothing says to it which caption is which image's.

    Raises EvaluationError if a score is not finite.
    """
    found: list[Match] = []
    for item, of_item in zip(items, scores, strict=True):
        check_finite(of_item)
        rows = of_item.double().tolist()
        orders = permutations(range(len(rows)))
        sums = [(fsum(rows[k][image] for image, k in enumerate(order)), order) for order in orders]
        (best, order), (second, _), *_ = sorted(sums, reverse=True)
        found.append(Match(item, order, best - second))
    return found


def surest(found: Sequence[Match], share: float) -> list[Match]:
    """Return this share of the matches, those with the largest margins, in the order of the groups.

    A tie is no match. Raises EvaluationError if there is nothing else.
    """
    sure = sorted((match for match in found if match.margin > 0), key=lambda match: -match.margin)
    if not sure:
        raise EvaluationError(
            "The model does not prefer any way to match a group, so it cannot learn from its matches."
        )
    kept = {match.item.id for match in sure[: ceil(share * len(found))]}
    return [match for match in found if match.item.id in kept]


class MatchedPairs(PairSet):
    """The images of groups with the captions that they were given. A group's other captions are hard negatives."""

    def __init__(self, found: Sequence[Match]) -> None:
        self._pairs = [(match, image) for match in found for image in range(len(match.order))]

    def __len__(self) -> int:
        return len(self._pairs)

    def sample(self, index: int) -> Sample:
        (item, order, _), image = self._pairs[index]
        own = item.captions[order[image]]
        others = tuple(caption for caption in item.captions if caption != own)
        return Sample(f"{item.id}, image {image}", (own,), (others,))

    def image(self, index: int) -> PIL.Image.Image:
        (item, _, _), image = self._pairs[index]
        return open_region(item.images[image])

    @cached_property
    def content_hash(self) -> str:
        """Reads every file."""
        hashing = hashlib.sha256()
        for index, ((item, _, _), image) in enumerate(self._pairs):
            sample, ref = self.sample(index), item.images[image]
            hashing.update(json.dumps([sample.name, sample.captions, sample.negatives, ref.box]).encode())
            hashing.update(hashlib.sha256(read_bytes(ref)).digest())
        return hashing.hexdigest()
