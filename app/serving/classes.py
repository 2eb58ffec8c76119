"""Class weights for /classify, built once for each combination of version, precision, labels and templates.

A small set, of at most SMALL_SET_PROMPTS prompts (labels x templates), is encoded while the request waits,
until its deadline. A large set (`imagenet` with 80 templates is 80,000 prompts) is encoded in the background,
between requests. The request waits for `wait_s`. If the previous version has the set, that version answers;
otherwise the answer is ClassesBuilding with the progress.

Before a swap, the small sets in use are encoded for the new version, so that the first requests after it need
not wait.
"""

import asyncio
import contextlib
import hashlib
import itertools
import json
import logging
from collections import OrderedDict
from collections.abc import Collection
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from sds_clip.app.errors import ClassesBuilding, Overloaded
from sds_clip.app.serving.engine import Engine
from sds_clip.app.serving.forward import Features, as_features
from sds_clip.app.serving.served_models import ModelHandle
from sds_clip.app.threads import in_own_thread
from sds_clip.models.clip.zero_shot import fill
from sds_clip.models.disk_cache import DiskCache

logger = logging.getLogger(__name__)

MAX_DISK_BYTES = 2**30
MAX_MEMORY_BYTES = 2**28
CLASS_WAIT_S = 3.0  # for a large set that is being encoded
# Each build holds [c, d] sums in memory and shares the background batches with the other builds.
MAX_LARGE_BUILDS = 4
# Encoding this many prompts fits into a request: docs/decisions/0023-slow-uploads-small-sets.md.
SMALL_SET_PROMPTS = 512
# The prompts that are encoded before a swap are few, because the swap waits for them.
PREPARED_PROMPTS = 512


@dataclass(frozen=True)
class ClassSet:
    """Labels, and the templates that each label is put into."""

    labels: tuple[str, ...]
    templates: tuple[str, ...]
    digest: str = field(init=False)

    def __post_init__(self) -> None:
        content = json.dumps([self.labels, self.templates]).encode()
        object.__setattr__(self, "digest", hashlib.sha256(content).hexdigest())

    @property
    def size(self) -> int:
        return len(self.labels) * len(self.templates)


@dataclass(eq=False)
class Build:
    """A set that is being encoded, with `done` prompts finished."""

    classes: ClassSet
    background: bool
    """Whether requests take precedence: the set is large, or no request waits for it."""
    task: "asyncio.Task[Tensor]" = field(init=False)
    done: int = 0

    @property
    def remaining(self) -> int:
        return self.classes.size - self.done


@dataclass(frozen=True)
class Kept:
    """The weights [c, d] of a set for one version."""

    classes: ClassSet
    weights: Tensor


@dataclass(eq=False)
class ClassWeights:
    """Class weights in memory, on disk, or being built, each of them bounded."""

    engine: Engine
    disk: DiskCache
    wait_s: float

    def __post_init__(self) -> None:
        self._ready: OrderedDict[tuple[str, str, str], Kept] = OrderedDict()
        self._size_bytes = 0
        """Of the sets in `_ready`."""
        self._builds: dict[tuple[str, str, str], Build] = {}
        self._writes: set[asyncio.Future[None]] = set()

    async def of(self, model: ModelHandle, classes: ClassSet) -> tuple[ModelHandle, Tensor]:
        """The weights [c, d] and the model they belong to: `model`, or the version that it replaced.

        Raises: ClassesBuilding for a large set, with the progress; Overloaded when too many large sets are
        being built.
        """
        key = (*model.key, classes.digest)
        weights = await self._lookup(key, classes)
        if weights is not None:
            return model, weights
        previous = self.engine.models.replaced(model)
        if previous is not None and self._is_large(classes):
            weights = await self._lookup((*previous.key, classes.digest), classes)
            if weights is not None:
                with contextlib.suppress(Overloaded):
                    self._build_of(key, model, classes)
                return previous, weights
        build = self._build_of(key, model, classes)
        build.background = self._is_large(classes)
        # A small set has no timeout here: its prompts queue like those of any request, until the deadline.
        await asyncio.wait([build.task], timeout=self.wait_s if build.background else None)
        if not build.task.done() or build.task.cancelled():
            raise ClassesBuilding(
                f"The server is encoding this label set for {model.name}: {build.done} of {classes.size} prompts "
                "are done. Send the same request again later.",
                param="labels",
                retry_after_s=self.engine.seconds_for(build.remaining),
            )
        return model, build.task.result()

    def waiting_prompts(self, model: ModelHandle, classes: ClassSet) -> int:
        """The number of prompts that a request encodes at once. Those of a large set wait in the background."""
        is_ready = (*model.key, classes.digest) in self._ready
        return 0 if is_ready or self._is_large(classes) else classes.size

    async def prepare(self, new: ModelHandle, old: ModelHandle, *, timeout_s: float) -> None:
        """Encode, for `new`, the small sets that `old` used most recently. Waiting requests go first."""
        recent = [kept.classes for key, kept in reversed(self._ready.items()) if key[:2] == old.key]
        tasks, prompts = [], 0
        for classes in recent:
            key = (*new.key, classes.digest)
            if self._is_large(classes) or await self._lookup(key, classes) is not None:
                continue
            prompts += classes.size
            if prompts > PREPARED_PROMPTS:
                break
            tasks.append(self._build_of(key, new, classes).task)
        if tasks:
            await asyncio.wait(tasks, timeout=timeout_s)

    def give_up_all_but(self, keys: Collection[tuple[str, str]]) -> None:
        """Stop encoding large sets for versions that are no longer served."""
        for key, build in list(self._builds.items()):
            if key[:2] not in keys and self._is_large(build.classes):
                build.task.cancel()

    async def close(self) -> None:
        """Cancel all builds, and wait for pending writes."""
        tasks = [build.task for build in self._builds.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, *self._writes, return_exceptions=True)

    async def _lookup(self, key: tuple[str, str, str], classes: ClassSet) -> Tensor | None:
        """The weights in memory or on disk; a set that is being built is not looked for on disk."""
        kept = self._ready.get(key)
        weights = None if kept is None else kept.weights
        if kept is None and key not in self._builds:
            weights = await in_own_thread(partial(self._read, key, classes), "read class weights")
        if weights is not None:
            self._keep(key, Kept(classes, weights))
        return weights

    def _read(self, key: tuple[str, str, str], classes: ClassSet) -> Tensor | None:
        stored = self.disk.get(_disk_key(key))
        if stored is None:
            return None
        return torch.frombuffer(bytearray(stored), dtype=torch.float32).reshape(len(classes.labels), -1)

    def _keep(self, key: tuple[str, str, str], kept: Kept) -> None:
        replaced = self._ready.pop(key, None)
        self._size_bytes += kept.weights.nbytes - (0 if replaced is None else replaced.weights.nbytes)
        self._ready[key] = kept
        while len(self._ready) > 1 and self._size_bytes > MAX_MEMORY_BYTES:
            _, dropped = self._ready.popitem(last=False)
            self._size_bytes -= dropped.weights.nbytes

    def _is_large(self, classes: ClassSet) -> bool:
        return classes.size > SMALL_SET_PROMPTS

    def _build_of(self, key: tuple[str, str, str], model: ModelHandle, classes: ClassSet) -> Build:
        """The build of a set, started if necessary. Small sets need no bound here: admission bounds them."""
        if key in self._builds:
            return self._builds[key]
        large = [build for build in self._builds.values() if self._is_large(build.classes)]
        if self._is_large(classes) and len(large) >= MAX_LARGE_BUILDS:
            raise Overloaded(
                f"{len(large)} large label sets are already being encoded; try again later.",
                param="labels",
                retry_after_s=self.engine.seconds_for(sum(build.remaining for build in large)),
            )
        build = Build(classes, background=True)
        build.task = asyncio.create_task(self._build(key, model, build), name=f"classes {classes.digest[:8]}")
        build.task.add_done_callback(lambda task: self._end(key, task))
        self._builds[key] = build
        return build

    def _end(self, key: tuple[str, str, str], task: "asyncio.Task[Tensor]") -> None:
        del self._builds[key]
        if not task.cancelled() and task.exception() is not None:
            logger.error("A label set could not be encoded.", exc_info=task.exception())

    async def _build(self, key: tuple[str, str, str], model: ModelHandle, build: Build) -> Tensor:
        """Sum each class's features while its prompts are encoded, so that memory holds only [c, d]."""
        if key in self._ready:  # another build of this set ended while its file was read
            return self._ready[key].weights
        classes, templates = build.classes, len(build.classes.templates)
        sums = np.zeros((len(classes.labels), model.clip.embed_dim), np.float32)
        # A generator: all prompts of a large set at once would take a multiple of the request's memory.
        texts = (fill(template, label) for label in classes.labels for template in classes.templates)
        while build.done < classes.size:
            size = self.engine.background_texts if build.background else self.engine.max_batch
            chunk = list(itertools.islice(texts, size))
            features = await self.engine.encode(model, as_features, texts=chunk, background=build.background)
            rows = np.arange(build.done, build.done + len(chunk)) // templates
            # Rows repeat, and `sums[rows] += ...` would add only one prompt of each class.
            np.add.at(sums, rows, features.texts.numpy())
            build.done += len(chunk)
        total = torch.from_numpy(sums)

        def normalized(_: Features) -> Tensor:
            return F.normalize(total, dim=-1)

        weights = await self.engine.encode(model, normalized)
        self._keep(key, Kept(classes, weights))
        # The write is not awaited, so that the request does not wait for the disk.
        writing = asyncio.get_running_loop().run_in_executor(
            None, self.disk.put, _disk_key(key), weights.numpy().tobytes()
        )
        self._writes.add(writing)
        writing.add_done_callback(self._writes.discard)
        return weights


def _disk_key(key: tuple[str, str, str]) -> bytes:
    return hashlib.sha256("|".join(key).encode()).digest()
