"""The engine: requests become entries, entries become batches, and a batch is one forward pass of one base.

The path of a request: `Engine.admit` admits its images and new texts. `Engine.encode` submits an `Encode` to
the batcher. The batcher hands entries of one family of versions to `Forward.run` in the forward thread. Each
entry gets back what its head made of its `Features`.
"""

import asyncio
import contextlib
import itertools
import time
from collections.abc import AsyncIterator, Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar, cast

import numpy as np
import torch
from prometheus_client.core import Metric
from torch import Tensor

from sds_clip.app.errors import DeadlineExceeded, NothingToServe, ServiceError, Unavailable
from sds_clip.app.joined_calls import JoinedCalls
from sds_clip.app.metrics import Metrics, gauge
from sds_clip.app.serving import turns
from sds_clip.app.serving.batcher import Batcher
from sds_clip.app.serving.forward import (
    Encode,
    EncodeEntry,
    Family,
    Features,
    Forward,
    Head,
    as_features,
    rows_of,
)
from sds_clip.app.serving.served_models import ModelHandle, ServedModels
from sds_clip.app.serving.turns import Turns
from sds_clip.models.clip.mixed import family_of
from sds_clip.models.clip.model import Clip

Answer = TypeVar("Answer")

# Texts whose features are kept in memory.
TEXT_CACHE_SIZE = 16_384
# How many characters are tokenized at once with a full batch, and fewer with a smaller one. Tokenizing occupies the
# forward thread, so others wait.
TURN_CHARS = 65_536
# How long an answered forward pass counts as readiness. Under load no probe is needed.
PROBE_EVERY_S = 5.0
PROBE_TIMEOUT_S = 10.0


@dataclass(eq=False)
class Engine:
    """Encodes for all requests of the process. Create it, then call `start()` in the event loop."""

    models: ServedModels
    metrics: Metrics
    max_batch: int
    max_queue: int
    deadline_s: float
    max_queue_per_key: int | None = None
    text_cache_size: int = TEXT_CACHE_SIZE
    pending_decodes: Callable[[], int] | None = None
    cores: int = 1

    def __post_init__(self) -> None:
        self._forward = Forward(self.metrics, self.max_batch, self.text_cache_size)
        self._batcher: Batcher[Family, Encode[object], object] = Batcher(
            self._forward.run,
            max_batch=self.max_batch,
            max_queue=self.max_queue,
            max_queue_per_key=self.max_queue_per_key,
            on_batch=self._observe,
            pending_decodes=self.pending_decodes,
            cores=self.cores,
        )
        self._turns = Turns()
        self._probes = JoinedCalls[str, None]()
        self._warm = set[tuple[str, tuple[int, int], int, str]]()
        """Makes that were warmed up and that no name serves."""
        self.metrics.watch(self._gauges)

    @property
    def alive(self) -> bool:
        return self._batcher.alive

    @property
    def draining(self) -> bool:
        """Whether new requests are refused because the process is about to end."""
        return self._batcher.draining

    def start(self) -> None:
        self._batcher.start()

    async def warm_up(self) -> None:
        """Run both towers of every model once, so that the first request does not pay for setup."""
        for model in self.models:
            await self._probe(model)
            await self.encode(model, as_features, texts=[""])

    async def warm_up_new(self, model: ModelHandle) -> None:
        """Run the usual shapes once, behind waiting requests, unless a model of the same make already did.

        The one-time cost of a new shape (choosing kernels, allocating workspaces) depends on the make, not on
        the weights.
        """
        make = _make(model.clip)
        if make in self._warm or any(_make(known.clip) == make for known in self.models):
            return
        for count in (1, self.max_batch):
            pixels = [_blank(model.clip)] * count
            texts = [f"{number}" for number in range(count)]
            await self.encode(model, as_features, pixels=pixels, texts=texts, background=True)
        self._warm.add(make)

    async def drain(self, timeout_s: float) -> bool:
        """Refuse new requests, and wait for the accepted ones. Returns False on timeout."""
        return await self._batcher.drain(timeout_s)

    async def close(self) -> None:
        await self._batcher.close()

    @contextlib.asynccontextmanager
    async def admit(
        self, images: int, texts: int, *, caller: str, lane: Hashable = None
    ) -> AsyncIterator[None]:
        """Admit a request's images and new texts, which are its cost, from before its turn until its deadline.

        `caller` is the name of an API key, or "" for none. `lane` is the name of the request's only model.

        Raises: Overloaded with a measured Retry-After, Unavailable, DeadlineExceeded.
        """
        with self._batcher.admit(max(1, images + texts), caller, lane=lane):
            try:
                seconds = self._seconds(images, texts)
                async with asyncio.timeout(self.deadline_s), self._turns.take(caller, seconds):
                    yield
            except TimeoutError:
                raise DeadlineExceeded(
                    f"The answer was not ready within {self.deadline_s:g} s; send fewer items, or try again "
                    "later.",
                    retry_after_s=self._batcher.retry_after_s(),
                ) from None

    def seconds_for(self, items: int) -> int:
        """The seconds that `items` more items will take at the measured rate, at least 1."""
        return self._batcher.retry_after_s(items)

    async def encode(
        self,
        model: ModelHandle,
        head: Head[Answer],
        *,
        pixels: Sequence[Tensor] = (),
        texts: Sequence[str] = (),
        new_texts: Sequence[str] | None = None,
        normalize: bool = True,
        background: bool = False,
    ) -> Answer:
        """Encode with the weights of `model`, in one batch, and return what `head` makes of the features.

        Each of `pixels` is [3, h, w] float32. The features are L2-normalised by default. `new_texts` are
        those that were admitted; without it they are computed here. What exceeds one turn is encoded turn by
        turn before the rest, so that other requests are computed in between. `background` work yields to requests.

        Raises: Unavailable, InternalError, Overloaded when the device is out of memory.
        """
        rest = self.new_texts(model, texts) if new_texts is None else new_texts
        if background:  # its turn, if any, does not count it
            turns.meter()(self._seconds(len(pixels), len(rest)))
        encoded: dict[str, bytes] = {}
        while len(turn := self._turn_of(rest)) < len(rest):
            features = await self._ahead(model, texts=turn, background=background)
            encoded.update(zip(turn, rows_of(features.texts), strict=True))
            rest = rest[len(turn) :]
        encoded_images = []
        while len(pixels) > (most := self._most_in_turn("image")):
            features = await self._ahead(model, pixels=pixels[:most], background=background)
            encoded_images.append(features.images)
            pixels = pixels[most:]
        work = Encode(
            model,
            head,
            pixels,
            texts,
            normalize,
            cache_texts=not background,
            encoded=encoded,
            encoded_images=encoded_images,
        )
        return await self._submit(work, cost=max(1, len(pixels) + len(rest)), background=background)

    async def compute(self, model: ModelHandle, call: Callable[[], Answer], *, first: bool) -> Answer:
        """Run `call` in the forward thread, next or in the background. It takes no longer than a request on `model`."""
        work = Encode(model, lambda _: call())
        return await self._submit(work, cost=1, first=first, background=not first)

    async def check_ready(self) -> None:
        """Return if a forward pass answered recently, or answers now. Raises Unavailable."""
        if self.draining:
            raise Unavailable("The server is shutting down; send the request again.", retry_after_s=1)
        try:
            default = self.models.resolve(None)
        except ServiceError as error:
            if not error.retryable:
                raise NothingToServe(error.message, code=error.code) from error
            raise Unavailable(
                error.message, code=error.code, retry_after_s=error.retry_after_s or 5
            ) from error
        if self.alive and time.monotonic() - self._forward.last_answer_at < PROBE_EVERY_S:
            return
        try:
            async with asyncio.timeout(PROBE_TIMEOUT_S):
                await self._probes.run("ready", lambda: self._probe(default), "probe")
        except (TimeoutError, ServiceError) as error:
            raise Unavailable("The model does not respond.", retry_after_s=5) from error

    def new_texts(self, model: ModelHandle, texts: Sequence[str]) -> list[str]:
        """The distinct texts whose features are not cached. The others cost nothing."""
        key = model.key
        return [text for text in dict.fromkeys(texts) if (key, text) not in self._forward.cache]

    @property
    def background_texts(self) -> int:
        """How many texts to encode at once in the background: a request that arrives meanwhile waits for a turn."""
        return self._in_a_turn("text")

    @property
    def shared(self) -> bool:
        """Whether several keys are active."""
        return self._turns.shared

    def at_once(self, parts: int, images: int, texts: int) -> int:
        """How many of a request's equal parts may be in progress, so that another key waits for no more than a turn."""
        seconds = self._seconds(images, texts)
        return max(1, int(turns.TURN_S * parts / seconds)) if self.shared and seconds else parts

    def _seconds(self, images: int, texts: int) -> float:
        """How long they compute at the rates of late."""
        each_s = self._forward.seconds_per
        return images * each_s["image"] + texts * each_s["text"]

    def _most_in_turn(self, stage: Literal["image", "text"]) -> int:
        """The most images, or texts, that one request may have in a batch."""
        return self._in_a_turn(stage) if self.shared else self.max_batch

    def _in_a_turn(self, stage: Literal["image", "text"]) -> int:
        each_s = self._forward.seconds_per[stage]
        return min(self.max_batch, max(1, int(turns.TURN_S / each_s))) if each_s else self.max_batch

    def _turn_of(self, texts: Sequence[str]) -> Sequence[str]:
        """The first texts, as many as take about as long to tokenize and encode as another request's."""
        most = self._most_in_turn("text")
        chars = itertools.accumulate(map(len, texts[:most]))
        fitting = sum(1 for sum_ in chars if sum_ <= TURN_CHARS * most // self.max_batch)
        return texts[: max(1, fitting)]

    async def _ahead(
        self,
        model: ModelHandle,
        *,
        pixels: Sequence[Tensor] = (),
        texts: Sequence[str] = (),
        background: bool,
    ) -> Features:
        """Encode a part of a request before its last batch."""
        work = Encode(model, as_features, pixels, texts, normalize=False, cache_texts=not background)
        if not background:
            await turns.give_way()
        return await self._submit(work, cost=len(pixels) + len(texts), background=background)

    async def _submit(
        self, work: Encode[Answer], *, cost: int, background: bool = False, first: bool = False
    ) -> Answer:
        family, name = family_of(work.model.clip), work.model.name  # a swap changes no lane
        # The queue holds entries with answers of every type. Each entry gets what its own head returned.
        answer = await self._batcher.submit(
            family, work, cost=cost, lane=name, background=background, first=first
        )
        return cast(Answer, answer)

    async def _probe(self, model: ModelHandle) -> None:
        await self._submit(Encode(model, as_features, [_blank(model.clip)]), cost=1, first=True)

    def _observe(self, entries: Sequence[EncodeEntry]) -> None:
        self.metrics.batch(
            images=sum(len(entry.payload.pixels) for entry in entries),
            texts=sum(len(entry.payload.texts) for entry in entries),
        )
        for entry in entries:
            self.metrics.stage("queue", entry.started_at - entry.enqueued_at)

    def _gauges(self) -> Iterator[Metric]:
        yield gauge("queued_items", "The number of items that wait for a batch.", self._batcher.queued)
        said = "The number of items that are being decoded, waiting or being computed."
        yield gauge("admitted_items", said, self._batcher.admitted)
        texts = len(self._forward.cache)
        yield gauge("text_cache_entries", "The number of texts whose features are cached.", texts)
        yield gauge(
            "generation",
            "The generation of the weights behind a name. It grows by one with each replacement.",
            {(model.name, model.clip.version[:12]): model.generation for model in self.models},
            ("model", "version"),
        )


def _blank(clip: Clip) -> Tensor:
    return torch.from_numpy(np.zeros((3, *clip.image_size), np.float32))


def _make(clip: Clip) -> tuple[str, tuple[int, int], int, str]:
    """The properties of a model that determine the shapes of its operations."""
    return clip.architecture, clip.image_size, clip.context_length, clip.precision
