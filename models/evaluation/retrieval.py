"""Retrieval in both directions: each text among all images, and each image among all texts.

An image has several texts, any of which counts.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from math import comb
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sds_clip.models.errors import EvaluationError
from sds_clip.models.evaluation.benchmark import Benchmark, check_finite, outcome_of
from sds_clip.models.evaluation.captions_file import is_pairs, read_captions, read_pairs
from sds_clip.models.evaluation.image_check import Say
from sds_clip.models.evaluation.items import Item
from sds_clip.models.evaluation.metrics import share
from sds_clip.models.evaluation.results import ItemOutcome, Results
from sds_clip.models.evaluation.scorers import ClipScorer, Scorer, features_of

KS = (1, 5, 10)
IMAGE_RETRIEVAL, TEXT_RETRIEVAL = "image_retrieval_recall", "text_retrieval_recall"
"""CLIP_benchmark's names for retrieving an image for a text, and a text for an image."""

_QUERIES, _OTHERS = 1024, 8192  # block sizes: they bound memory
_BELOW_EVERY_COSINE = -2.0  # finite, so that margins are

Batch = tuple[Float[Tensor, "n d"], Int[Tensor, "n"]]
"""Features, and the index of the image that each belongs to."""


@dataclass(frozen=True)
class Retrieval(Benchmark):
    """Items of one image with all of its captions."""

    def measure(self, items: Sequence[Item], scorer: Scorer, say: Say) -> Results:
        """Compute recall at 1, 5 and 10 both ways. Items with equal scores rank ahead: ties never help."""
        clip = features_of(scorer)
        outcomes: list[ItemOutcome] = []
        of_text = recall_margins(_texts(clip, items, _QUERIES), lambda: _images(clip, items, _OTHERS))
        for item in items:
            for place, caption in enumerate(item.captions):
                margins = next(of_text)
                outcomes.append(
                    _outcome(f"text {item.id}/{place}", IMAGE_RETRIEVAL, margins, item, (caption,))
                )
        of_image = recall_margins(_images(clip, items, _QUERIES), lambda: _texts(clip, items, _OTHERS))
        for margins, item in zip(of_image, items, strict=True):
            outcomes.append(_outcome(f"image {item.id}", TEXT_RETRIEVAL, margins, item, item.captions))
        names = [f"{way}@{k}" for way in (IMAGE_RETRIEVAL, TEXT_RETRIEVAL) for k in KS]
        texts = sum(len(item.captions) for item in items)

        def chance(item: ItemOutcome, name: str) -> float:
            """Return the probability that one of the query's own is among the first k of a random order."""
            way, _, k = name.partition("@")
            total, own = (len(items), 1) if way == IMAGE_RETRIEVAL else (texts, len(item.captions))
            first = min(int(k), total)
            return 1 - comb(total - own, first) / comb(total, first)

        return Results(
            benchmark=self.name,
            primary=names[0],
            outcome=names[0],
            metrics={name: share(outcomes, name, chance) for name in names},
            by_tag={},
            items=tuple(outcomes),
            provenance={"images": len(items), "texts": texts},
        )


def recall_margins(queries: Iterable[Batch], others: Callable[[], Iterable[Batch]]) -> Iterator[list[float]]:
    """Yield each query's margin at each k: its own counterparts' best score minus the others' k-th best.

    A query is found within k if this is above 0. If there are fewer than k others, -2 stands for the k-th.
    Only a block of queries and a block of the others are in memory at a time.
    """
    for features, numbers in queries:
        own = torch.full((len(features),), _BELOW_EVERY_COSINE)
        foreign = torch.full((len(features), max(KS)), _BELOW_EVERY_COSINE)
        for other_features, other_numbers in others():
            # Float64 rounded to float32: a duplicate ties exactly, wherever it is in the matrix product.
            scores = (features.double() @ other_features.double().T).float()
            check_finite(scores)
            mine = numbers[:, None] == other_numbers[None, :]
            own = torch.maximum(own, scores.masked_fill(~mine, _BELOW_EVERY_COSINE).amax(dim=1))
            candidates = torch.cat([foreign, scores.masked_fill(mine, _BELOW_EVERY_COSINE)], dim=1)
            foreign = candidates.topk(max(KS), dim=1).values
        kth = foreign[:, [k - 1 for k in KS]].double()
        yield from (own.double()[:, None] - kth).tolist()


@dataclass(frozen=True)
class InBatchAccuracy:
    """The share of pairs whose counterpart scores strictly highest within its batch."""

    image_to_text: float
    text_to_image: float


def in_batch_accuracy(
    image_features: Float[Tensor, "n d"], text_features: Float[Tensor, "n d"], *, batch_size: int
) -> InBatchAccuracy:
    """Return recall@1 among consecutive batches of pairs (image k, text k), as a contrastive batch sees them.

    Every pair counts once, among the others of one batch; see `counted_batches`.

    Raises:
        EvaluationError: fewer pairs than one batch, or features that are not finite.
    """
    count = len(image_features)
    if count < batch_size:
        raise EvaluationError(f"{count} pairs do not fill one batch of {batch_size}.")
    to_text = to_image = 0
    for rows, counted in counted_batches(count, batch_size):
        own = torch.arange(batch_size)
        images, texts = (image_features[rows], own), (text_features[rows], own)
        to_text += _found_first(images, texts, counted)
        to_image += _found_first(texts, images, counted)
    return InBatchAccuracy(to_text / count, to_image / count)


def _found_first(queries: Batch, others: Batch, counted: int) -> int:
    """Count the queries, of the last `counted` ones, that find their counterpart before all others."""
    return sum(first > 0 for first, *_ in list(recall_margins([queries], lambda: [others]))[-counted:])


def counted_batches(count: int, batch_size: int) -> Iterator[tuple[slice, int]]:
    """Yield the rows of each batch of `count` >= `batch_size` pairs, and how many of its last ones count.

    Pairs that fill no batch are measured within the last `batch_size` pairs, whose earlier ones have counted
    already. A smaller batch would be easier (decision 25).
    """
    for start in range(0, count, batch_size):
        end = min(start + batch_size, count)
        yield slice(end - batch_size, end), end - start


def retrieval_benchmark(path: Path, images: Path | None = None) -> Retrieval:
    """Read a captions file (COCO's, or a list of {image, caption: [...]}), a `metadata.jsonl` or `.csv`, or a table.

    Raises: as `read_captions`.
    """
    found = read_pairs(path, images) if is_pairs(path) else read_captions(path, images)
    return Retrieval("retrieval", tuple(found), {})


def _images(clip: ClipScorer, items: Sequence[Item], size: int) -> Iterator[Batch]:
    for start in range(0, len(items), size):
        chunk = items[start : start + size]
        yield clip.image_features([item.images[0] for item in chunk]), torch.arange(start, start + len(chunk))


def _texts(clip: ClipScorer, items: Sequence[Item], size: int) -> Iterator[Batch]:
    texts = ((caption, number) for number, item in enumerate(items) for caption in item.captions)
    while chunk := list(islice(texts, size)):
        yield (
            clip.text_features([caption for caption, _ in chunk]),
            torch.tensor([number for _, number in chunk]),
        )


def _outcome(
    item_id: str, name: str, margins: list[float], item: Item, captions: tuple[str, ...]
) -> ItemOutcome:
    named = {f"{name}@{k}": margin for k, margin in zip(KS, margins, strict=True)}
    return outcome_of(replace(item, id=item_id, captions=captions), named)
