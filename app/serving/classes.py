"""Class weights for /classify: built once for a version, a precision, labels and templates.

A small set is encoded while the request waits. A large one (`imagenet` with 80 templates is 80,000
prompts) is encoded in the background, between requests; until it is ready the request is answered by the
version before, if that one has the set, or with ClassesBuilding and the progress.
"""

import asyncio
import hashlib
import json
import logging
from collections import OrderedDict
from dataclasses import dataclass, field

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from app.errors import ClassesBuilding, Overloaded
from app.serving.class_store import ClassStore
from app.serving.engine import Engine
from app.serving.served import Served
from models.zero_shot import prompts

logger = logging.getLogger(__name__)

MAX_BUILDS = 4
SMALL_SET_BATCHES = 8


@dataclass(frozen=True)
class ClassSet:
    """Labels and the templates that each is put into."""

    labels: tuple[str, ...]
    templates: tuple[str, ...]
    digest: str = field(init=False)

    def __post_init__(self) -> None:
        content = json.dumps([self.labels, self.templates]).encode()
        object.__setattr__(self, "digest", hashlib.sha256(content).hexdigest())

    @property
    def size(self) -> int:
        """How many prompts the set is made of."""
        return len(self.labels) * len(self.templates)


@dataclass(eq=False)
class Build:
    """A set on its way: `done` prompts of its size are encoded."""

    classes: ClassSet
    task: "asyncio.Task[Tensor]" = field(init=False)
    done: int = 0

    @property
    def remaining(self) -> int:
        """Prompts still to encode."""
        return self.classes.size - self.done


class ClassWeights:
    """Class weights in memory (bounded), on disk (bounded), or being built (bounded)."""

    def __init__(self, engine: Engine, store: ClassStore, *, wait_s: float, memory_sets: int = 64) -> None:
        self._engine = engine
        self._store = store
        self._wait_s = wait_s
        self._memory_sets = memory_sets
        self._ready: OrderedDict[tuple[str, str, str], Tensor] = OrderedDict()
        self._builds: dict[tuple[str, str, str], Build] = {}

    async def of(self, served: Served, classes: ClassSet) -> tuple[Served, Tensor]:
        """The weights [c, d] and whose they are: `served`'s, or those of the version that it replaced.

        Raises: ClassesBuilding with the progress, Overloaded when too many sets are being built.
        """
        key = (*served.key, classes.digest)
        weights = self._lookup(key)
        if weights is not None:
            return served, weights
        build = self._builds.get(key) or self._begin(key, served, classes)
        previous = self._engine.models.previous(served)
        if previous is not None:
            weights = self._lookup((*previous.key, classes.digest))
            if weights is not None:
                return previous, weights
        try:
            return served, await asyncio.wait_for(asyncio.shield(build.task), self._wait_s)
        except TimeoutError:
            raise ClassesBuilding(
                f"This label set is being encoded for {served.name}: {build.done} of {classes.size} prompts "
                "are done. Send the same request again later.",
                param="labels",
                retry_after_s=self._engine.seconds_for(build.remaining),
            ) from None

    async def close(self) -> None:
        """Give up what is being built."""
        tasks = [build.task for build in self._builds.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _lookup(self, key: tuple[str, str, str]) -> Tensor | None:
        weights = self._ready.get(key)
        if weights is None:
            weights = self._store.read(*key)
            if weights is None:
                return None
        self._keep(key, weights)
        return weights

    def _keep(self, key: tuple[str, str, str], weights: Tensor) -> None:
        self._ready[key] = weights
        self._ready.move_to_end(key)
        if len(self._ready) > self._memory_sets:
            self._ready.popitem(last=False)

    def _begin(self, key: tuple[str, str, str], served: Served, classes: ClassSet) -> Build:
        if len(self._builds) >= MAX_BUILDS:
            remaining = sum(build.remaining for build in self._builds.values())
            raise Overloaded(
                f"{MAX_BUILDS} label sets are being encoded already; come back later.",
                param="labels",
                retry_after_s=self._engine.seconds_for(remaining),
            )
        build = Build(classes)
        build.task = asyncio.create_task(
            self._build(key, served, build), name=f"classes {classes.digest[:8]}"
        )
        build.task.add_done_callback(lambda task: self._end(key, task))
        self._builds[key] = build
        return build

    def _end(self, key: tuple[str, str, str], task: "asyncio.Task[Tensor]") -> None:
        del self._builds[key]
        if not task.cancelled() and task.exception() is not None:
            logger.error("a label set could not be encoded", exc_info=task.exception())

    async def _build(self, key: tuple[str, str, str], served: Served, build: Build) -> Tensor:
        """Sum each class's features as its prompts are encoded, so that memory holds no more than [c, d]."""
        classes, templates = build.classes, len(build.classes.templates)
        background = classes.size > SMALL_SET_BATCHES * self._engine.max_batch
        sums = np.zeros((len(classes.labels), served.clip.embed_dim), np.float32)
        texts = prompts(classes.labels, classes.templates)
        for start in range(0, classes.size, self._engine.max_batch):
            chunk = texts[start : start + self._engine.max_batch]
            features = await self._engine.encode(
                served, texts=chunk, finish=lambda features: features, background=background
            )
            rows = np.arange(start, start + len(chunk)) // templates
            np.add.at(sums, rows, features.texts.numpy())
            build.done = start + len(chunk)
        total = torch.from_numpy(sums)
        weights = await self._engine.encode(served, finish=lambda _: F.normalize(total, dim=-1))
        self._keep(key, weights)
        await asyncio.to_thread(self._store.write, *key, weights)
        return weights
