"""Test-Time Matching (arXiv 2510.07632): pairs out of groups of images and captions that nobody has matched.

A model matches each group by the assignment with the highest sum of cosines. The surest of these matches are pairs to
train on, and the model that learned from them matches again.
"""

import hashlib
import json
from collections.abc import Sequence
from functools import cached_property
from itertools import permutations
from math import ceil, fsum
from typing import NamedTuple

import PIL.Image

from sds_clip.models.data.pairs import PairSet, Sample
from sds_clip.models.errors import EvaluationError
from sds_clip.models.evaluation.items import Item, open_region, read_bytes
from sds_clip.models.evaluation.results import Results


class Match(NamedTuple):
    """A group with the assignment that a model chose: image k has the caption `order[k]`."""

    item: Item
    order: tuple[int, ...]
    margin: float
    """By how much the sum of its cosines is above that of the next best assignment."""


def matches(items: Sequence[Item], results: Results) -> list[Match]:
    """Match groups by their scores. Nothing says to it which caption is which image's.

    Raises EvaluationError if the benchmark has no groups of several images and captions.
    """
    of = {item.id: item for item in items}
    found: list[Match] = []
    for outcome in results.items:
        if not outcome.scores:
            raise EvaluationError(
                f"{results.benchmark} has no groups of images and captions to match; use winoground, colorswap or "
                "mmvp-vlm, or data in the format of one."
            )
        orders = permutations(range(len(outcome.scores)))
        sums = [(fsum(outcome.scores[k][image] for image, k in enumerate(order)), order) for order in orders]
        (best, order), (second, _), *_ = sorted(sums, reverse=True)
        found.append(Match(of[outcome.id], order, best - second))
    return found


def surest(found: Sequence[Match], share: float) -> list[Match]:
    """Return this share of the matches, those with the largest margins, in the order of the groups. Ties are none."""
    sure = sorted((match for match in found if match.margin > 0), key=lambda match: -match.margin)
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
