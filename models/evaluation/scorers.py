"""Scorers: how well captions and images fit, according to a model. There are two kinds with one protocol."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import groupby, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from sds_clip.models.ahead import in_order
from sds_clip.models.evaluation.computed_by import computed_by
from sds_clip.models.evaluation.image_check import Images, Problems, Say, quiet
from sds_clip.models.evaluation.items import ImageProblem, Item, open_region
from sds_clip.models.evaluation.kept import KeptFeatures, open_cache
from sds_clip.models.images.ref import ImageRef
from sds_clip.models.machine import usable_cores

if TYPE_CHECKING:
    from sds_clip.models.clip.model import Clip

_TEXTS = 256  # texts per batch of the encoder
_ITEMS = 512  # items whose features are in memory at once


@runtime_checkable
class Scorer(Protocol):
    """Scores every caption of an item for each of its images. Higher is better."""

    @property
    def name(self) -> str:
        """`clip` or `diffusion`."""

    def describe(self) -> dict[str, Any]:
        """What the scores depend on: model, version, precision, device, batch size, threads, seed."""

    def prepare(self, items: Sequence[Item], images: Images, problems: Problems, say: Say = quiet) -> None:
        """Decode all items and, if it pays, encode them. Images that cannot be decoded go to `problems`."""

    def scores(self, items: Sequence[Item], say: Say = quiet) -> Iterator[Float[Tensor, "c i"]]:
        """Yield scores `[caption, image]` of each item. All items must have been prepared."""


class ClipScorer(AbstractContextManager["ClipScorer"]):
    """Cosines of a CLIP's features. Each image and text is encoded once, and kept in `folder` for all runs.

    Features are kept by version, precision, device, threads and what computed them; images by batch size, content and
    box, texts by tokens. Another batch size or number of threads changes the last bits of a feature.
    """

    name = "clip"

    def __init__(
        self, clip: Clip, folder: Path, *, batch_size: int = 32, max_bytes: int | None = None
    ) -> None:
        """`max_bytes` bounds what the folder keeps of all models together."""
        self.clip = clip
        self._batch_size = batch_size
        self._cache = open_cache(folder, max_bytes)
        by = f"{clip.version}-{clip.precision}-{clip.device.type}-{torch.get_num_threads()}-{computed_by()}"
        self._images = KeptFeatures(self._cache, f"{by}-images-{batch_size}", clip.embed_dim)
        self._texts = KeptFeatures(self._cache, f"{by}-texts", clip.embed_dim)
        self._key_of_text: dict[str, bytes] = {}
        self._key_of_image: dict[ImageRef, bytes] = {}
        self.encoded = {"images": 0, "texts": 0}
        """How many were encoded because they were not kept before."""

    def close(self) -> None:
        for kept in (self._images, self._texts, self._cache):
            kept.close()

    def __exit__(self, *_: object) -> None:
        self.close()

    def describe(self) -> dict[str, Any]:
        return {
            "model": self.clip.reference,
            "architecture": self.clip.architecture,
            "model_version": self.clip.version,
            "precision": self.clip.precision,
            "device": str(self.clip.device),
            "batch_size": self._batch_size,
            "threads": torch.get_num_threads(),
        }

    def prepare(self, items: Sequence[Item], images: Images, problems: Problems, say: Say = quiet) -> None:
        """Encode everything that is not kept yet."""
        self._key_of_image |= images.keys
        bad = self._encode_images(items, images.keys, say)
        for item in items:
            for region in item.images:
                if region in bad:
                    problems.add(item.id, bad[region])
        self.encode_texts(dict.fromkeys(caption for item in items for caption in item.captions), say)

    def scores(self, items: Sequence[Item], say: Say = quiet) -> Iterator[Float[Tensor, "c i"]]:
        done = 0
        for (captions, images), group in groupby(items, key=_shape):
            same = list(group)
            for start in range(0, len(same), _ITEMS):
                chunk = same[start : start + _ITEMS]
                texts = self.text_features([caption for item in chunk for caption in item.captions])
                pixels = self.image_features([region for item in chunk for region in item.images])
                yield from cosines(
                    texts.reshape(len(chunk), captions, -1), pixels.reshape(len(chunk), images, -1)
                )
                done += len(chunk)
                say("items", done, len(items))

    def image_features(self, regions: Sequence[ImageRef]) -> Float[Tensor, "n d"]:
        """Return L2-normalised features of prepared images. Only these are read from disk."""
        return self._images.take([self._key_of_image[region] for region in regions])

    def text_features(self, texts: Sequence[str]) -> Float[Tensor, "n d"]:
        """Return L2-normalised features of encoded texts."""
        return self._texts.take([self._key_of_text[text] for text in texts])

    def encode_texts(self, texts: Sequence[str] | dict[str, None], say: Say = quiet) -> None:
        """Encode the texts that are not kept yet. Texts with equal tokens share one feature."""
        waiting = [text for text in texts if text not in self._key_of_text]
        for start in range(0, len(waiting), _TEXTS):
            batch = waiting[start : start + _TEXTS]
            tokens = self.clip.tokenizer(batch)
            keys = [hashlib.sha256(row.contiguous().numpy()).digest() for row in tokens]
            self._key_of_text.update(zip(batch, keys, strict=True))
            self._texts.fetch(keys)
            new = {key: row for row, key in enumerate(keys) if key not in self._texts}
            if new:
                self._texts.add(list(new), self.clip.encode_text(tokens[list(new.values())]))
                self.encoded["texts"] += len(new)
            say("texts", start + len(batch), len(waiting))

    def _encode_images(
        self, items: Sequence[Item], keys: dict[ImageRef, bytes], say: Say
    ) -> dict[ImageRef, str]:
        """Encode images that are not kept, decoding one batch ahead; return failed ones with the reason."""
        every: dict[bytes, list[ImageRef]] = {}
        for region in dict.fromkeys(region for item in items for region in item.images):
            every.setdefault(keys[region], []).append(region)
        self._images.fetch_named(every)
        waiting = [(key, regions[0]) for key, regions in every.items() if key not in self._images]
        bad: dict[ImageRef, str] = {}
        done = len(every) - len(waiting)
        if every:  # some items have no image
            say("images", done, len(every))
        for batch in self._decoded(waiting):
            self._add_images({key: found for key, found in batch if isinstance(found, _Pixels)})
            for key, found in batch:
                if isinstance(found, str):
                    bad |= dict.fromkeys(every[key], found)
            done += len(batch)
            say("images", done, len(every))
        return bad

    def _decoded(self, waiting: list[tuple[bytes, ImageRef]]) -> Iterator[list[tuple[bytes, _Pixels | str]]]:
        with ThreadPoolExecutor(max_workers=usable_cores()) as pool:
            regions = (region for _, region in waiting)
            found = in_order(pool, self._preprocessed, regions, self._batch_size)
            keyed = zip((key for key, _ in waiting), found, strict=True)
            while batch := list(islice(keyed, self._batch_size)):
                yield batch

    def _preprocessed(self, region: ImageRef) -> _Pixels | str:
        try:
            values = self.clip.preprocess(open_region(region)).contiguous()
        except ImageProblem as error:
            return str(error)
        return _Pixels(
            values, hashlib.sha256(hashlib.sha256(values.numpy().data).digest() + b"pixels").digest()
        )

    def _add_images(self, batch: dict[bytes, _Pixels]) -> None:
        """Encode a batch. Equal pixels from any files share one row, so that their ties stay ties."""
        self._images.fetch(pixels.key for pixels in batch.values())
        new = {pixels.key: pixels.values for pixels in batch.values() if pixels.key not in self._images}
        if new:
            self._images.add(list(new), self.clip.encode_image(torch.stack(list(new.values()))))
            self.encoded["images"] += len(new)
        self._images.name({key: pixels.key for key, pixels in batch.items()})


@dataclass(frozen=True, eq=False)
class _Pixels:
    """A preprocessed image, and a hash of its values."""

    values: Tensor
    key: bytes


def features_of(scorer: Scorer) -> ClipScorer:
    """Return the scorer if it has features. `check_scorer` has refused others by name.

    Raises TypeError.
    """
    if not isinstance(scorer, ClipScorer):
        raise TypeError(f"{type(scorer).__name__} has no features")
    return scorer


def cosines(texts: Float[Tensor, "n c d"], images: Float[Tensor, "n i d"]) -> Float[Tensor, "n c i"]:
    """Return the cosines of each item's captions and images, from normalised features.

    They are computed elementwise, summed in float64 and rounded to float32, so that equal features tie
    wherever they are.
    """
    return (texts.double()[:, :, None] * images.double()[:, None, :]).sum(dim=-1).float()


def _shape(item: Item) -> tuple[int, int]:
    return len(item.captions), len(item.images)
