"""One batch in the forward thread: all images in one forward pass, all uncached texts in another.

Entries of several versions share it if the versions are of one family (`sds_clip.models.clip.mixed`).

No other thread of the service computes with torch. OpenMP keeps a team of threads for each thread that does.
With more team threads than cores, they stop spinning between operations, and a forward pass of one image
takes half as long again (docs/decisions/0007-one-thread-computes.md).
"""

import time
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Generic, Literal, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from sds_clip.app.errors import InternalError, Unavailable
from sds_clip.app.metrics import Metrics
from sds_clip.app.serving.batcher import Entry
from sds_clip.app.serving.served_models import ModelHandle
from sds_clip.models.clip.mixed import encode_images, encode_texts
from sds_clip.models.clip.model import Clip

# About as many forward passes count in what an image or a text takes.
RECENT = 5
Item = TypeVar("Item")
Answer = TypeVar("Answer", covariant=True)


@dataclass(frozen=True)
class Features:
    """Float32 features on the CPU, in the order of the request: [i, d] and [t, d]."""

    images: Tensor
    texts: Tensor


Head = Callable[[Features], Answer]
"""Makes an entry's answer from its features, in the forward thread, the only one that computes with torch."""


def as_features(features: Features) -> Features:
    return features


@dataclass(frozen=True)
class Encode(Generic[Answer]):
    """What one entry wants encoded: preprocessed images, each [3, h, w] float32, and texts.

    `head` makes the answer.
    """

    model: ModelHandle
    head: Head[Answer]
    pixels: Sequence[Tensor] = ()
    texts: Sequence[str] = ()
    normalize: bool = True
    cache_texts: bool = True
    encoded: Mapping[str, bytes] = field(default_factory=dict)
    """Features of texts that were already encoded for this entry, not normalised."""
    encoded_images: Sequence[Tensor] = ()
    """Features [i, d] of the images before `pixels`, which were already encoded for this entry, not normalised."""


Family = Hashable
"""What entries that may share a batch have in common: `sds_clip.models.clip.mixed.family_of`."""
EncodeEntry = Entry[Family, Encode[object], object]
ModelKey = tuple[str, str]
TextKey = tuple[ModelKey, str]
"""A model's key and a text."""


def rows_of(features: Tensor) -> list[bytes]:
    """The rows of float32 features, which are joined again several times faster than torch.stack joins tensors."""
    return [row.tobytes() for row in features.numpy()]


@dataclass(eq=False)
class Forward:
    """Runs batches of `Encode` entries of one family. `run` belongs to the forward thread."""

    metrics: Metrics
    max_batch: int
    text_cache_size: int

    def __post_init__(self) -> None:
        self.cache = OrderedDict[TextKey, bytes]()
        """Text features, a row for each text, the least recently used first. Other threads may only look up which keys
        it holds. A request has thousands of texts, and an LRUCache takes four times as long for each."""
        self.last_answer_at = float("-inf")
        self.seconds_per = {"image": 0.0, "text": 0.0}
        """What an image and a text took lately, or 0 before the first."""

    def run(self, _: Family, entries: Sequence[EncodeEntry]) -> list[object]:
        """Each entry's answer, or InternalError if the model returned numbers that are not finite."""
        images = chain(*self._encode_images(entries))
        texts = self._encode_texts(entries)
        answers = [_answer(entry.payload, _features_of(entry.payload, images, texts)) for entry in entries]
        if not all(isinstance(answer, Exception) for answer in answers):
            self.last_answer_at = time.monotonic()
        return answers

    def _encode_images(self, entries: Sequence[EncodeEntry]) -> list[Tensor]:
        rows = [(entry.payload.model.clip, pixels) for entry in entries for pixels in entry.payload.pixels]

        def encode(chunk: list[tuple[Clip, Tensor]]) -> Tensor:
            clips, pixels = zip(*chunk, strict=True)
            return encode_images(clips, torch.stack(pixels))

        return self._in_chunks(entries, rows, encode, stage="image")

    def _encode_texts(self, entries: Sequence[EncodeEntry]) -> dict[ModelKey, dict[str, bytes]]:
        """The features of each distinct text of each model, from the cache or encoded now and cached."""
        known = defaultdict[ModelKey, dict[str, bytes]](dict)
        missing: dict[TextKey, tuple[Clip, bool]] = {}
        hits = 0
        for encode in (entry.payload for entry in entries):
            known[encode.model.key].update(encode.encoded)
        for encode in (entry.payload for entry in entries):
            model = encode.model.key
            own = known[model]
            for text in encode.texts:
                if text in own or (model, text) in missing:
                    continue
                features = self.cache.get((model, text)) if encode.cache_texts else None
                if features is None:
                    missing[model, text] = encode.model.clip, encode.cache_texts
                else:
                    self.cache.move_to_end((model, text))
                    own[text] = features
                    hits += 1
        self.metrics.texts_looked_up(hits=hits, misses=len(missing))

        def encode_chunk(chunk: list[tuple[Clip, str]]) -> Tensor:
            clips, texts = zip(*chunk, strict=True)
            return encode_texts(clips, clips[0].tokenizer(list(texts)))

        rows = [(clip, text) for (_, text), (clip, _) in missing.items()]
        encoded = self._in_chunks(entries, rows, encode_chunk, stage="text")
        for (key, (_, keep)), features in zip(missing.items(), chain(*map(rows_of, encoded)), strict=True):
            model, text = key
            known[model][text] = features
            if keep:
                self.cache[key] = features
                if len(self.cache) > self.text_cache_size:
                    self.cache.popitem(last=False)
        return known

    def _in_chunks(
        self,
        entries: Sequence[EncodeEntry],
        items: list[Item],
        encode: Callable[[list[Item]], Tensor],
        *,
        stage: Literal["image", "text"],
    ) -> list[Tensor]:
        """The features [n, d] of each chunk."""
        features: list[Tensor] = []
        for start in range(0, len(items), self.max_batch):
            if all(entry.abandoned for entry in entries):
                raise Unavailable("All callers have disconnected.")
            started_at = time.monotonic()
            chunk = items[start : start + self.max_batch]
            features.append(encode(chunk).cpu())
            took_s = time.monotonic() - started_at
            self.metrics.stage(f"forward_{stage}", took_s)
            before_s, each_s = self.seconds_per[stage], took_s / len(chunk)
            self.seconds_per[stage] = before_s + (each_s - before_s) / RECENT if before_s else each_s
        return features


def _features_of(
    encode: Encode[object], images: Iterator[Tensor], texts: Mapping[ModelKey, Mapping[str, bytes]]
) -> Features:
    own_images = own_texts = torch.zeros(0, encode.model.clip.embed_dim)
    if encode.pixels or encode.encoded_images:
        rest = [torch.stack([next(images) for _ in encode.pixels])] if encode.pixels else []
        own_images = _scaled(torch.cat([*encode.encoded_images, *rest]), encode)
    if encode.texts:
        rows = map(texts[encode.model.key].__getitem__, encode.texts)
        joined = torch.frombuffer(bytearray().join(rows), dtype=torch.float32)
        own_texts = _scaled(joined.view(len(encode.texts), -1), encode)
    return Features(own_images, own_texts)


def _scaled(features: Tensor, encode: Encode[object]) -> Tensor:
    return F.normalize(features, dim=-1) if encode.normalize else features


def _answer(encode: Encode[object], features: Features) -> object:
    # numpy looks at a few rows in a third of the time.
    if np.isfinite(features.images.numpy()).all() and np.isfinite(features.texts.numpy()).all():
        return encode.head(features)
    return InternalError(
        "The model computed numbers that are not finite; its operator must replace the weights."
    )
