"""What a check keeps of a data set for people to look at: the list of its samples, and histograms."""

import os
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from sds_clip.app.datasets.folders import Content
from sds_clip.app.datasets.samples import Sample
from sds_clip.models.data.pairs import StoredPairs
from sds_clip.models.evaluation.items import Item
from sds_clip.models.images.ref import ImageRef

BINS = 20


def statistics(captions: Iterable[Iterable[str]], longer_sides: Sequence[int]) -> dict[str, Any]:
    """The histograms of a data set: of the words of its captions, and of the longer sides of its images."""
    words = array("L", (len(caption.split()) for each in captions for caption in each))
    return {"caption_words": histogram(words), "image_longer_side": histogram(longer_sides)}


def histogram(values: Sequence[int]) -> dict[str, list[int]] | None:
    """Counts of whole numbers between edges: edges[k] <= value < edges[k + 1]. None if there are no values.

    The bins are equal but for the last one, which takes the highest hundredth, so that a single large value does not
    move all others into the first bin.
    """
    if not len(values):
        return None
    found = np.asarray(values, dtype=np.int64)
    low, high, most = int(found.min()), int(np.percentile(found, 99, method="higher")), int(found.max())
    step = (high - low) // BINS + 1
    edges = [*range(low, high + 1, step), max(most, high) + 1]
    counts: list[int] = np.histogram(found, edges)[0].tolist()
    return {"edges": edges, "counts": counts}


def samples_of_pairs(pairs: StoredPairs, content: Content) -> Iterator[Sample]:
    for index, sample in enumerate(pairs.samples):
        image = pairs.ref(index)
        if image is not None and not content.is_folder and image.path not in content.paths:
            # Shards of several folders are read by links, which are named by their number (`sds_clip.worker.data`).
            image = replace(image, path=content.paths[int(image.path.stem)])
        yield Sample(sample.name, sample.captions, (), (_placed(image, content),) if image else ())


def samples_of_items(items: Iterable[Item], content: Content) -> Iterator[Sample]:
    for item in items:
        images = tuple(_placed(image, content) for image in item.images)
        yield Sample(item.id, item.captions, item.tags, images)


def _placed(image: ImageRef, content: Content) -> ImageRef:
    """Name the file of an image from the folder of the data, which moves when the check of an upload ends."""
    folder = content.paths[0] if content.is_folder else content.paths[0].parent
    return replace(image.as_range(), path=Path(os.path.relpath(image.path, folder)), name="")
