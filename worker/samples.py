"""What a check keeps of a data set for people to look at: the list of its samples, and histograms."""

import os
from array import array
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image

from sds_clip.app.datasets.folders import Content
from sds_clip.app.datasets.samples import Place, Sample
from sds_clip.models.data.cells import CellPairs
from sds_clip.models.data.pairs import FilePairs, StoredPairs
from sds_clip.models.data.shards import ShardPairs
from sds_clip.models.evaluation.items import ArchiveImage, CellImage, Item
from sds_clip.models.evaluation.results import ImageRegion
from sds_clip.models.images.table_cells import Cell

BINS = 20


class Sides:
    """The longer side of each image, in pixels. `add` may be called from several threads."""

    def __init__(self) -> None:
        self.longer = array("L")

    def add(self, image: PIL.Image.Image) -> None:
        self.longer.append(max(image.size))


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
    places = Places(content)
    for index, sample in enumerate(pairs.samples):
        yield Sample(sample.name, sample.captions, (), _place_of_pair(pairs, index, places))


def samples_of_items(items: Iterable[Item], content: Content) -> Iterator[Sample]:
    places = Places(content)
    for item in items:
        yield Sample(item.id, item.captions, item.tags, tuple(map(places.of_region, item.images)))


class Places:
    """Where the pictures of a data set are, wherever its folder will be.

    Files of uploads are named from the folder of the data, which moves when the check ends. All others have their
    absolute paths.
    """

    def __init__(self, content: Content) -> None:
        self._content = content
        self._root = content.paths[0] if content.is_folder else content.paths[0].parent

    def of_file(self, file: Path, offset: int | None = None, size: int | None = None) -> Place:
        return Place(self._path(file), offset, size)

    def of_shard(self, shard: Path, offset: int, size: int) -> Place:
        """Shards of several folders are read by links, which are named by their number (`sds_clip.worker.data`)."""
        if not self._content.is_folder and shard not in self._content.paths:
            shard = self._content.paths[int(shard.stem)]
        return self.of_file(shard, offset, size)

    def of_cell(self, cell: Cell) -> Place:
        """A range is read without pyarrow, so that it comes first."""
        if (found := cell.range()) is not None:
            return self.of_file(cell.file, *found)
        return Place(self._path(cell.file), column=cell.column, row=cell.row)

    def of_region(self, region: ImageRegion) -> Place:
        match region:
            case ArchiveImage():
                return Place(self._path(region.path), region.offset, region.size, box=region.box)
            case CellImage():
                return self.of_cell(Cell(region.path, region.column, region.row))
            case _:
                return Place(self._path(region.path), box=region.box)

    def _path(self, file: Path) -> str:
        return os.path.relpath(file, self._root)


def _place_of_pair(pairs: StoredPairs, index: int, places: Places) -> tuple[Place, ...]:
    match pairs:
        case FilePairs():
            return (places.of_file(pairs.files[index]),)
        case CellPairs():
            return (places.of_cell(pairs.cells[index]),)
        case ShardPairs() if (place := pairs.places[index]) is not None:
            return (places.of_shard(place.shard, place.offset, place.size),)
        case _:
            return ()
