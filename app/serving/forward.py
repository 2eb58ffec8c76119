"""One batch in the forward thread: all images in one forward pass, all uncached texts in another.

No other thread of the service computes with torch. OpenMP keeps a team of threads for each thread that does.
With more team threads than cores, they stop spinning between operations, and a forward pass of one image
takes half as long again (docs/decisions/0007-one-thread-computes.md).
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

import torch
import torch.nn.functional as F
from cachetools import LRUCache
from torch import Tensor

from app.errors import InternalError, Unavailable
from app.metrics import Metrics
from app.serving.batcher import Job
from app.serving.served_models import ModelHandle

Item = TypeVar("Item")
Answer = TypeVar("Answer", covariant=True)


@dataclass(frozen=True)
class Features:
    """Float32 features on the CPU, in the order of the request: [i, d] and [t, d]."""

    images: Tensor
    texts: Tensor


class Head(Protocol[Answer]):
    """Makes a job's answer from its features.

    It runs in the forward thread, the only one that computes with torch.
    """

    def __call__(self, features: Features, /) -> Answer: ...


def as_features(features: Features) -> Features:
    return features


@dataclass(frozen=True)
class Encode(Generic[Answer]):
    """What one job wants encoded: preprocessed images, each [3, h, w] float32, and texts.

    `head` makes the answer.
    """

    head: Head[Answer]
    pixels: Sequence[Tensor] = ()
    texts: Sequence[str] = ()
    normalize: bool = True
    cache_texts: bool = True
    encoded: Mapping[str, Tensor] = field(default_factory=dict)
    """Features of texts that were already encoded for this job, not normalised."""
    encoded_images: Sequence[Tensor] = ()
    """Features [i, d] of the images before `pixels`, which were already encoded for this job, not normalised."""


EncodeJob = Job[ModelHandle, Encode[object], object]


class Forward:
    """Runs batches of `Encode` jobs with the same `ModelHandle`. `run` belongs to the forward thread."""

    def __init__(self, metrics: Metrics, *, max_batch: int, text_cache_size: int) -> None:
        self.cache: LRUCache[tuple[tuple[str, str], str], Tensor] = LRUCache(text_cache_size)
        """Text features by model and text. Other threads may only look up which keys it holds."""
        self._metrics = metrics
        self._max_batch = max_batch
        self.last_answer_at = float("-inf")

    def run(self, model: ModelHandle, jobs: Sequence[EncodeJob]) -> list[object]:
        """Each job's answer, or InternalError if the model returned numbers that are not finite."""
        images = iter(self._encode_images(model, jobs))
        texts = self._encode_texts(model, jobs)
        answers = [_answer(job.payload, self._features_of(model, job.payload, images, texts)) for job in jobs]
        if not all(isinstance(answer, Exception) for answer in answers):
            self.last_answer_at = time.monotonic()
        return answers

    def _features_of(
        self, model: ModelHandle, encode: Encode[object], images: Iterator[Tensor], texts: dict[str, Tensor]
    ) -> Features:
        empty = torch.zeros(0, model.clip.embed_dim)
        rest = [torch.stack([next(images) for _ in encode.pixels])] if encode.pixels else []
        own_images = torch.cat([empty, *encode.encoded_images, *rest])
        own_texts = torch.stack([texts[text] for text in encode.texts]) if encode.texts else empty
        if not encode.normalize:
            return Features(own_images, own_texts)
        return Features(F.normalize(own_images, dim=-1), F.normalize(own_texts, dim=-1))

    def _encode_images(self, model: ModelHandle, jobs: Sequence[EncodeJob]) -> list[Tensor]:
        pixels = [pixels for job in jobs for pixels in job.payload.pixels]
        return self._in_chunks(
            jobs,
            pixels,
            lambda chunk: model.clip.encode_image(torch.stack(chunk), normalize=False),
            stage="image",
        )

    def _encode_texts(self, model: ModelHandle, jobs: Sequence[EncodeJob]) -> dict[str, Tensor]:
        """The features of each distinct text, from the cache or encoded now and cached."""
        known = {text: features for job in jobs for text, features in job.payload.encoded.items()}
        ahead = len(known)
        missing: dict[str, bool] = {}
        for encode in (job.payload for job in jobs):
            for text in encode.texts:
                if text in known or text in missing:
                    continue
                features = self.cache.get((model.key, text)) if encode.cache_texts else None
                if features is None:
                    missing[text] = encode.cache_texts
                else:
                    known[text] = features
        self._metrics.texts_looked_up(hits=len(known) - ahead, misses=len(missing))
        clip = model.clip
        encoded = self._in_chunks(
            jobs,
            list(missing),
            lambda chunk: clip.encode_text(clip.tokenizer(chunk), normalize=False),
            stage="text",
        )
        for (text, keep), features in zip(missing.items(), encoded, strict=True):
            known[text] = features
            if keep and self.cache.maxsize:
                self.cache[model.key, text] = features.clone()
        return known

    def _in_chunks(
        self,
        jobs: Sequence[EncodeJob],
        items: list[Item],
        encode: Callable[[list[Item]], Tensor],
        *,
        stage: str,
    ) -> list[Tensor]:
        features: list[Tensor] = []
        for start in range(0, len(items), self._max_batch):
            if all(job.abandoned for job in jobs):
                raise Unavailable("All callers have disconnected.")
            started_at = time.monotonic()
            features.extend(encode(items[start : start + self._max_batch]).cpu())
            self._metrics.stage(f"forward_{stage}", time.monotonic() - started_at)
        return features


def _answer(encode: Encode[object], features: Features) -> object:
    if features.images.isfinite().all() and features.texts.isfinite().all():
        return encode.head(features)
    return InternalError(
        "The model computed numbers that are not finite; its operator must replace the weights."
    )
