"""Choose the samples of each step, as a pure function of (seed, step), and load them ahead of time."""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import PIL.Image
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from sds_clip.models.data.pairs import PairSet, Sample
from sds_clip.models.errors import DataError

_UINT64 = 2**64 - 1
# The last word of Philox's counter separates the kinds of draws under one (seed, epoch).
_ORDER, _CAPTION, _OTHER = 0, 1, 2


@dataclass(frozen=True, eq=False)
class Batch:
    """One process's part of the batch of a step. `negatives[k]` belong to `captions[k]`."""

    step: int
    indices: Int64[Tensor, "b"]
    decoded: list[int]
    """The places in the batch whose pixels are needed: all of them, unless the loader was told otherwise."""
    pixels: Float[Tensor, "n 3 h w"]
    """One row for each place in `decoded`."""
    captions: list[str]
    negatives: list[tuple[str, ...]]
    others: list[str | None]
    """Another caption of each image, or None if it has one alone."""


def order(size: int, seed: int, epoch: int) -> Int64[np.ndarray, "size"]:
    """Return the order of an epoch's samples.

    It is the argsort of Philox's raw numbers, which no version of numpy changes.
    """
    return np.argsort(_philox(seed, epoch, 0, _ORDER).random_raw(size), kind="stable").astype(np.int64)


def batch_indices(size: int, batch_size: int, seed: int, step: int) -> Int64[np.ndarray, "batch_size"]:
    """Return the samples of a step.

    An epoch has `size // batch_size` steps; samples that fill no batch are left out of it.

    Raises:
        DataError: a batch is larger than the data.
    """
    epoch, place = divmod(step, steps_per_epoch(size, batch_size))
    return _kept_order(size, seed, epoch)[place * batch_size : (place + 1) * batch_size].copy()


def steps_per_epoch(size: int, batch_size: int) -> int:
    """Return the number of whole batches in the data.

    Raises:
        DataError: there is not even one.
    """
    if not 0 < batch_size <= size:
        raise DataError(
            f"A batch of {batch_size} needs as many samples, but the data has only {size}. Lower the batch size, or "
            "add data."
        )
    return size // batch_size


def caption_choice(sample: Sample, seed: int, epoch: int, index: int) -> int:
    """Return which of a sample's captions an epoch shows. `index` is the sample's position in its set."""
    return int(_philox(seed, epoch, index, _CAPTION).random_raw()) % len(sample.captions)


def texts_of(
    pairs: PairSet, indices: Int64[np.ndarray, "b"], seed: int, epoch: int
) -> tuple[list[str], list[tuple[str, ...]], list[str | None]]:
    """Return the caption of each sample that an epoch shows, that caption's hard negatives, and another caption."""
    captions, negatives, others = [], [], []
    for index in indices.tolist():
        sample = pairs.sample(index)
        choice = caption_choice(sample, seed, epoch, index)
        captions.append(sample.captions[choice])
        negatives.append(sample.negatives[choice] if sample.negatives else ())
        others.append(other_caption(sample, seed, epoch, index))
    return captions, negatives, others


def other_caption(sample: Sample, seed: int, epoch: int, index: int) -> str | None:
    """Return a caption that an epoch shows beside the one of `caption_choice`, or None without a second one."""
    chosen = caption_choice(sample, seed, epoch, index)
    others = [caption for caption in sample.captions if caption != sample.captions[chosen]]
    return others[int(_philox(seed, epoch, index, _OTHER).random_raw()) % len(others)] if others else None


class Loader:
    """Yields the batches of steps `first_step <= step < last_step` in order, preparing `depth` of them ahead.

    Threads decode and preprocess; one more assembles batches. An error in a thread is raised when its batch
    is requested. Preprocessed pixels are kept in memory up to `cache_bytes`, since preprocessing is not
    random. `wait_s` is the time that the consumer has waited. Iterate over a loader once; `close` stops
    the threads.
    """

    def __init__(
        self,
        pairs: PairSet,
        preprocess: Callable[[PIL.Image.Image], Float[Tensor, "3 h w"]],
        *,
        batch_size: int,
        seed: int,
        first_step: int,
        last_step: int,
        rank: int = 0,
        world_size: int = 1,
        workers: int = 2,
        depth: int = 2,
        cache_bytes: int = 2**30,
        known: Callable[[int], bool] = lambda index: False,
    ) -> None:
        """`batch_size` is for all processes together; this one loads the rank-th of its equal parts.

        A sample that is `known` when its batch is begun is not decoded.

        Raises:
            DataError: a batch is larger than the data, or the processes cannot share it evenly.
        """
        self._steps_per_epoch = steps_per_epoch(len(pairs), batch_size)
        if batch_size % world_size:
            raise DataError(
                f"A batch of {batch_size} cannot be split into {world_size} equal parts; make it a "
                f"multiple of {world_size}."
            )
        self.wait_s = 0.0
        self._pairs, self._preprocess = pairs, preprocess
        self._batch_size, self._seed = batch_size, seed
        self._steps = iter(range(first_step, last_step))
        part = batch_size // world_size
        self._part = slice(rank * part, (rank + 1) * part)
        self._depth = depth
        self._known = known
        self._cache = _PixelCache(cache_bytes)
        self._decoders = ThreadPoolExecutor(workers, thread_name_prefix="decode")
        self._assembler = ThreadPoolExecutor(1, thread_name_prefix="assemble")

    def __iter__(self) -> Iterator[Batch]:
        """Yield the batches. Raises DataError naming a sample that cannot be loaded."""
        ahead: deque[Future[Batch]] = deque()
        try:
            for step in self._steps:
                ahead.append(self._start(step))
                if len(ahead) > self._depth:
                    yield self._finished(ahead.popleft())
            while ahead:
                yield self._finished(ahead.popleft())
        finally:
            self.close()

    def close(self) -> None:
        """Stop the threads, and wait until they have ended."""
        self._decoders.shutdown(wait=True, cancel_futures=True)
        self._assembler.shutdown(wait=True, cancel_futures=True)

    def _start(self, step: int) -> Future[Batch]:
        indices = batch_indices(len(self._pairs), self._batch_size, self._seed, step)[self._part]
        loading = {
            place: self._decoders.submit(self._load, index)
            for place, index in enumerate(indices.tolist())
            if not self._known(index)
        }
        return self._assembler.submit(self._assemble, step, indices, loading)

    def _finished(self, batch: Future[Batch]) -> Batch:
        started = time.perf_counter()
        try:
            return batch.result()
        finally:
            self.wait_s += time.perf_counter() - started

    def _load(self, index: int) -> Tensor:
        cached = self._cache.get(index)
        if cached is not None:
            return cached
        try:
            pixels = self._preprocess(self._pairs.image(index))
        except DataError:
            raise
        except Exception as error:
            name = self._pairs.sample(index).name
            raise DataError(f"{name}: the image cannot be prepared: {error} Check the data.") from error
        self._cache.put(index, pixels)
        return pixels

    def _assemble(
        self, step: int, indices: Int64[np.ndarray, "b"], loading: dict[int, Future[Tensor]]
    ) -> Batch:
        rows = [future.result() for future in loading.values()]
        captions, negatives, others = texts_of(
            self._pairs, indices, self._seed, step // self._steps_per_epoch
        )
        return Batch(
            step=step,
            indices=torch.from_numpy(indices),
            decoded=list(loading),
            pixels=torch.stack(rows) if rows else torch.empty(0, 3, 0, 0),
            captions=captions,
            negatives=negatives,
            others=others,
        )


class _PixelCache:
    """Preprocessed images by position in the set. Once it is full, it takes no more and drops none.

    Every epoch reads all images once in a new order. Dropping the least recently used image would find far
    fewer of them again than keeping the first ones (decision 31).
    """

    def __init__(self, max_bytes: int) -> None:
        self._left = max_bytes
        self._kept: dict[int, Tensor] = {}
        self._lock = threading.Lock()

    def get(self, index: int) -> Tensor | None:
        return self._kept.get(index)

    def put(self, index: int, pixels: Tensor) -> None:
        size = pixels.numel() * pixels.element_size()
        with self._lock:
            if index not in self._kept and size <= self._left:
                self._kept[index] = pixels
                self._left -= size


@lru_cache(maxsize=4)
def _kept_order(size: int, seed: int, epoch: int) -> Int64[np.ndarray, "size"]:
    return order(size, seed, epoch)


def _philox(seed: int, epoch: int, index: int, purpose: int) -> np.random.Philox:
    return np.random.Philox(
        key=np.array([seed & _UINT64, epoch], dtype=np.uint64),
        counter=np.array([0, index, 0, purpose], dtype=np.uint64),
    )
