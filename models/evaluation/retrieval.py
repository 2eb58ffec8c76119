"""Retrieval: does a query find its counterpart among many? Ties never help: an equal rival ranks ahead."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from models.evaluation.errors import EvaluationError

_QUERIES = 1024


@dataclass(frozen=True)
class RetrievalMetrics:
    """Recall at each k, in [0, 1]."""

    images: int
    texts: int
    image_to_text: dict[int, float]
    text_to_image: dict[int, float]


@dataclass(frozen=True)
class InBatchAccuracy:
    """Share of pairs whose counterpart scores strictly highest within its batch."""

    batch_size: int
    batches: int
    image_to_text: float
    text_to_image: float


def retrieval_metrics(
    image_features: Float[Tensor, "i d"],
    text_features: Float[Tensor, "t d"],
    image_of_text: Int[Tensor, "t"],
    *,
    ks: Sequence[int] = (1, 5, 10),
) -> RetrievalMetrics:
    """Recall@k in both directions; `image_of_text[j]` is the image that text j describes.

    An image with several captions is a hit when any of them is among its k best texts.

    Raises:
        EvaluationError: an image without a caption, a caption without an image, or features not finite.
    """
    _check(image_features, text_features, image_of_text)
    text_ranks = image_to_text_ranks(image_features, text_features, image_of_text)
    image_ranks = text_to_image_ranks(image_features, text_features, image_of_text)
    return RetrievalMetrics(
        images=len(image_features),
        texts=len(text_features),
        image_to_text={k: _share(text_ranks < k) for k in ks},
        text_to_image={k: _share(image_ranks < k) for k in ks},
    )


def image_to_text_ranks(
    image_features: Float[Tensor, "i d"], text_features: Float[Tensor, "t d"], image_of_text: Int[Tensor, "t"]
) -> Int[Tensor, "i"]:
    """For each image, how many foreign texts score at least as high as the best of its own (0 is a win)."""
    ranks = []
    for start in range(0, len(image_features), _QUERIES):
        scores = _scores(image_features[start : start + _QUERIES], text_features)
        own = image_of_text[None, :] == torch.arange(start, start + len(scores))[:, None]
        best = scores.masked_fill(~own, -torch.inf).amax(dim=1, keepdim=True)
        ranks.append(((scores >= best) & ~own).sum(dim=1))
    return torch.cat(ranks)


def text_to_image_ranks(
    image_features: Float[Tensor, "i d"], text_features: Float[Tensor, "t d"], image_of_text: Int[Tensor, "t"]
) -> Int[Tensor, "t"]:
    """For each text, how many other images score at least as high as its own (0 is a win)."""
    ranks = []
    for start in range(0, len(text_features), _QUERIES):
        scores = _scores(text_features[start : start + _QUERIES], image_features)
        own = image_of_text[start : start + _QUERIES, None]
        ranks.append((scores >= scores.gather(1, own)).sum(dim=1) - 1)
    return torch.cat(ranks)


def in_batch_accuracy(
    image_features: Float[Tensor, "n d"], text_features: Float[Tensor, "n d"], *, batch_size: int
) -> InBatchAccuracy:
    """Recall@1 among consecutive batches of pairs (image k, text k), as a contrastive batch sees them.

    Every pair counts once, among the others of one batch; see `counted_batches`.

    Raises:
        EvaluationError: fewer pairs than one batch, or features not finite.
    """
    if len(image_features) < batch_size:
        raise EvaluationError(f"{len(image_features)} pairs do not fill one batch of {batch_size}.")
    own = torch.arange(batch_size)
    _check(image_features, text_features, torch.arange(len(image_features)))
    found_texts, found_images, weights = [], [], []
    for rows, counted in counted_batches(len(image_features), batch_size):
        images, texts = image_features[rows], text_features[rows]
        found_texts.append(_share(image_to_text_ranks(images, texts, own)[-counted:] == 0))
        found_images.append(_share(text_to_image_ranks(images, texts, own)[-counted:] == 0))
        weights.append(counted / batch_size)
    return InBatchAccuracy(
        batch_size, len(weights), _weighted_mean(found_texts, weights), _weighted_mean(found_images, weights)
    )


def counted_batches(count: int, batch_size: int) -> Iterator[tuple[slice, int]]:
    """The rows of each batch of `count` >= `batch_size` pairs, and how many of its last ones count in it.

    What fills no batch is measured within the last `batch_size` pairs, of which those before it have counted
    already: in a smaller batch it would be easier.
    """
    for start in range(0, count, batch_size):
        end = min(start + batch_size, count)
        yield slice(end - batch_size, end), end - start


def _weighted_mean(values: Sequence[float], weights: Sequence[float]) -> float:
    return sum(value * weight for value, weight in zip(values, weights, strict=True)) / sum(weights)


def _scores(queries: Float[Tensor, "q d"], others: Float[Tensor, "o d"]) -> Float[Tensor, "q o"]:
    # Float64 rounded to float32: a duplicate ties exactly, wherever the matrix product places it.
    return (queries.double() @ others.double().T).float()


def _check(
    image_features: Float[Tensor, "i d"], text_features: Float[Tensor, "t d"], image_of_text: Int[Tensor, "t"]
) -> None:
    if len(text_features) == 0 or len(image_features) == 0:
        raise EvaluationError("Retrieval needs at least one image and one text.")
    if not bool(torch.isfinite(image_features).all()) or not bool(torch.isfinite(text_features).all()):
        raise EvaluationError(
            "Some features are not finite: the model's weights or its precision are broken."
        )
    if int(image_of_text.min()) < 0 or int(image_of_text.max()) >= len(image_features):
        raise EvaluationError("A text names an image that is not in the set.")
    captions = torch.bincount(image_of_text, minlength=len(image_features))
    if int(captions.min()) == 0:
        raise EvaluationError(f"Image {int(captions.argmin())} has no caption; remove it from the set.")


def _share(hits: Tensor) -> float:
    return float(hits.double().mean())
