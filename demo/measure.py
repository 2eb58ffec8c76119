"""The demonstration's measurements of a student on a part of the world."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from statistics import fmean
from typing import Any

import numpy as np
import PIL.Image
import torch

from sds_clip.demo.render import render
from sds_clip.demo.sets import CLASS_TEMPLATES, RETRIEVAL_BATCH, classification_set, retrieval_set
from sds_clip.demo.winoground_sets import ITEMS_PER_KIND, WinogroundItem, winoground_items
from sds_clip.demo.world import Split
from sds_clip.models.clip.encode import encode_images, encode_texts
from sds_clip.models.clip.model import Clip
from sds_clip.models.clip.zero_shot import class_weights, prompts
from sds_clip.models.evaluation.results import GROUP_MATCH
from sds_clip.models.evaluation.retrieval import InBatchAccuracy, in_batch_accuracy
from sds_clip.models.evaluation.scorers import cosines
from sds_clip.models.evaluation.winoground import winoground_margins
from sds_clip.models.evaluation.zero_shot import class_margins


@dataclass(frozen=True)
class StudentScores:
    """Outcomes per Winoground item in the set's order, and the two shares that must not get worse."""

    kinds: list[str]
    text: list[bool]
    image: list[bool]
    retrieval: float
    """Recall@1 in batches of 128, mean of both directions."""
    zero_shot: float
    """Top-1 accuracy among 192 names."""
    margins: list[float]
    """GroupMatch margins: s00 + s11 - s01 - s10 of each item."""

    def by_kind(self, right: Sequence[bool]) -> dict[str, float]:
        """The share of right items of each kind."""
        found: dict[str, list[bool]] = {}
        for kind, one in zip(self.kinds, right, strict=True):
            found.setdefault(kind, []).append(one)
        return {kind: fmean(ones) for kind, ones in found.items()}

    @property
    def group(self) -> list[bool]:
        """Whether text and image are both right."""
        return [text and image for text, image in zip(self.text, self.image, strict=True)]

    @property
    def group_match(self) -> list[bool]:
        """Whether the two right pairs together score above the two wrong ones."""
        return [margin > 0 for margin in self.margins]


def measure(
    clip: Clip, split: Split, per_kind: int = ITEMS_PER_KIND, *, seed: int | None = None
) -> StudentScores:
    """Measure a student on a part's Winoground-style items, its retrieval pairs and its single objects.

    By default these sets have the seeds of demo/data. With `seed`, they have this one and the next two.
    """
    seeds: list[dict[str, int]] = [{} if seed is None else {"seed": seed + place} for place in range(3)]
    items, pictures = _winoground(split, per_kind, **seeds[0])
    images = encode_images(clip, pictures, batch_size=128)
    texts = encode_texts(clip, [caption for item in items for caption in item.captions])
    scores = cosines(texts.reshape(len(items), 2, -1), images.reshape(len(items), 2, -1))
    margins = [winoground_margins(one) for one in scores]
    found = retrieval(clip, split, **seeds[1])
    return StudentScores(
        kinds=[item.kind for item in items],
        text=[margin["text"] > 0 for margin in margins],
        image=[margin["image"] > 0 for margin in margins],
        retrieval=(found.image_to_text + found.text_to_image) / 2,
        zero_shot=_zero_shot(clip, split, **seeds[2]),
        margins=[margin[GROUP_MATCH] for margin in margins],
    )


def retrieval(clip: Clip, split: Split, **seeded: Any) -> InBatchAccuracy:
    """In-batch retrieval of a part's pairs."""
    pairs = _pairs(split, **seeded)
    images = encode_images(clip, _pictures(pairs.images), batch_size=128)
    return in_batch_accuracy(images, encode_texts(clip, pairs.captions), batch_size=RETRIEVAL_BATCH)


def _zero_shot(clip: Clip, split: Split, **seeded: Any) -> float:
    examples = _labelled(split, **seeded)
    images = encode_images(clip, _pictures(examples.images), batch_size=128)
    texts = encode_texts(clip, prompts(examples.labels, CLASS_TEMPLATES))
    scores = images @ class_weights(texts, len(CLASS_TEMPLATES)).T
    margins = class_margins(scores, torch.tensor(examples.targets))
    return sum(margin["acc1"] > 0 for margin in margins) / len(margins)


@cache
def _winoground(
    split: Split, per_kind: int, **seeded: Any
) -> tuple[list[WinogroundItem], list[PIL.Image.Image]]:
    items = winoground_items(split, per_kind, **seeded)
    return items, _pictures(np.stack([render(scene) for item in items for scene in item.scenes]))


_pairs = cache(retrieval_set)
_labelled = cache(classification_set)


def _pictures(pixels: np.ndarray) -> list[PIL.Image.Image]:
    return [PIL.Image.fromarray(image) for image in pixels]
