"""Batching across requests: collects waiting entries, runs them in one thread, and returns the results.

The life of an entry: `admit` (or 429) -> decoding by the caller -> `submit` -> waits in the queue ->
one batch with others of the same group -> `run` in the worker thread -> the caller's result.

Groups take turns, and so do the lanes of one group within a batch: whoever sends many entries does not delay others.

There is no batching window when idle: an entry that arrives alone starts at once. Under load, batches grow while
the worker is busy. If decoding and computing share the cores, running both at once slows both. The next batch
then also waits for the images that are being decoded at that moment (`pending_decodes`), because no core is
idle meanwhile (docs/decisions/0007-one-thread-computes.md). The batcher knows nothing else about images, and
nothing about CLIP.
"""

import asyncio
import contextlib
import math
import time
from collections import Counter, deque
from collections.abc import Callable, Hashable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Generic, TypeVar

from sds_clip.app.budgets import Budget
from sds_clip.app.errors import InternalError, OutOfMemory, Overloaded, ServiceError, Unavailable

Group = TypeVar("Group", bound=Hashable)
Payload = TypeVar("Payload")
Result = TypeVar("Result")

# Under load every 4th batch is a background one, and the background takes at most a quarter of the time: label sets
# never starve, and requests lose a quarter at most.
BACKGROUND_SHARE = 4
# The weight of earlier batches in the measured rate. About the last five count, so the rate follows the load.
RATE_MEMORY = 0.8
# The measured rate predicts little beyond this time.
MAX_RETRY_AFTER_S = 60
# Entries that are ready wait no longer than this for images that are being decoded.
MAX_DECODE_WAIT_S = 0.2
# Once a core is free again, the last few decodes have this long to join: one batch is faster than two.
DECODE_TAIL_S = 0.01
# Clients that were just answered send their next request within about this time each. Without this pause,
# half of them miss the next batch, and batches stay at half the size that they could have.
LINGER_PER_JOB_S = 0.001
# Threads change the count behind `pending_decodes`, so it is polled. A forward pass of ViT-B/32 takes 25 ms
# or more, so polling every millisecond is fine enough.
POLL_S = 0.001


@dataclass(eq=False)
class Entry(Generic[Group, Payload, Result]):
    """One caller's work. It is never split, and belongs to one group."""

    group: Group
    payload: Payload
    cost: int
    future: "asyncio.Future[Result]"
    lane: Hashable = None
    """Entries of different lanes take turns."""
    background: bool = False
    first: bool = False
    """Whether it jumped the queue."""
    enqueued_at: float = field(default_factory=time.monotonic)
    started_at: float = 0.0

    @property
    def abandoned(self) -> bool:
        return self.future.done()


@dataclass(eq=False)
class Batcher(Generic[Group, Payload, Result]):
    """Runs `run(group, entries)` on batches of entries that share a group, one batch at a time.

    `run` is called in a worker thread with at least one entry. For each entry it returns a result, or an
    exception to raise. If `run` itself raises, its entries are run again one by one, so that one failing entry does
    not affect the others.

    `submit` raises Unavailable, or the exception that `run` returned for the entry.
    """

    run: Callable[[Group, Sequence[Entry[Group, Payload, Result]]], Sequence[Result | Exception]]
    max_batch: int
    max_queue: int
    max_queue_per_key: int | None = None
    on_batch: Callable[[Sequence[Entry[Group, Payload, Result]]], None] | None = None
    pending_decodes: Callable[[], int] | None = None
    cores: int = 1

    def __post_init__(self) -> None:
        self._queue: deque[Entry[Group, Payload, Result]] = deque()
        self._background: deque[Entry[Group, Payload, Result]] = deque()
        self._arrived = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="forward")
        self._loop_task: asyncio.Task[None] | None = None
        self._batches = 0
        self._background_from = 0.0
        """When the background has its next turn if requests have been computed since its last one."""
        self._requests_since = False
        self._served: dict[Group, int] = {}
        """The number of the last batch of a group."""
        self._admission = Budget(
            self.max_queue,
            limit="max_queue_per_key",
            per_key=self.max_queue_per_key,
            retry_after_s=self.retry_after_s,
            full=self._queue_full,
            any_first=True,
        )
        self._admitted_of = Counter[Hashable]()
        self.draining = False
        self._recent_items = 0.0
        self._recent_s = 0.0

    @property
    def admitted(self) -> int:
        """The number of items that wait or are computed, from before they are decoded."""
        return self._admission.used

    @property
    def queued(self) -> int:
        """The number of items (not entries) that wait for a batch."""
        return sum(entry.cost for entry in self._queue)

    @property
    def items_per_s(self) -> float:
        """The measured rate, or 0 before the first batch."""
        return self._recent_items / self._recent_s if self._recent_s else 0.0

    @property
    def alive(self) -> bool:
        return self._loop_task is not None and not self._loop_task.done()

    def start(self) -> None:
        """Start taking batches. Call it in the running event loop."""
        self._loop_task = asyncio.create_task(self._take_batches(), name="batcher")

    async def drain(self, timeout_s: float) -> bool:
        """Admit nothing more, and wait for what was admitted. Returns False on timeout."""
        self.draining = True
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._idle.wait(), timeout_s)
        return self.admitted == 0

    async def close(self) -> None:
        """Stop the loop. Entries that are still waiting are answered with Unavailable."""
        self.draining = True
        if self._loop_task is not None:
            self._loop_task.cancel()
            await asyncio.gather(self._loop_task, return_exceptions=True)
        for entry in [*self._queue, *self._background]:
            if not entry.abandoned:
                entry.future.set_exception(
                    Unavailable("The server is shutting down; send the request again.")
                )
        self._worker.shutdown(wait=False, cancel_futures=True)

    @contextlib.contextmanager
    def admit(self, cost: int, caller: str = "", lane: Hashable = None) -> Iterator[None]:
        """Hold a place for `cost` items, from before they are decoded until they are answered.

        An entry larger than the whole queue is admitted when nothing else is. The same holds for a caller's share of
        the queue, so that one caller alone cannot fill it. `caller` is the name of an API key, or "" for none. A lane
        of which nothing is admitted may go beyond the queue by a batch, so that another lane cannot shut it out.
        """
        if self.draining:
            raise Unavailable("The server is shutting down; send the request again.", retry_after_s=1)
        self._admission.take(cost, caller, more=0 if self._admitted_of[lane] else self.max_batch)
        self._admitted_of[lane] += cost
        self._idle.clear()
        try:
            yield
        finally:
            self._admission.give_back(cost, caller)
            self._admitted_of[lane] -= cost
            if not self._admitted_of[lane]:
                del self._admitted_of[lane]
            if self.admitted == 0:
                self._idle.set()

    def _queue_full(self, used: int, total: int) -> ServiceError:
        return Overloaded(
            f"{used} items are waiting, and at most {total} may wait; try again later.",
            retry_after_s=self.retry_after_s(),
        )

    def retry_after_s(self, items: int = 0) -> int:
        """Estimate, from the measured rate, how many seconds everything admitted plus `items` more will take."""
        if self.items_per_s == 0:
            return 1
        waiting_s = (self.admitted + items) / self.items_per_s
        return max(1, min(MAX_RETRY_AFTER_S, math.ceil(waiting_s)))

    async def submit(
        self,
        group: Group,
        payload: Payload,
        *,
        cost: int,
        background: bool = False,
        lane: Hashable = None,
        first: bool = False,
    ) -> Result:
        """Wait for the payload's result.

        If the caller is cancelled while its entry is queued, the entry is not computed.

        Lanes take turns, so that one with many entries does not delay another with few. `background` entries run when
        nothing else waits, or in every 4th batch, one in a batch, so that a request that arrives meanwhile waits for
        one of them at most. A `first` entry jumps the queue, and waits only for the batch that is running.
        """
        if not self.alive:
            raise Unavailable("The engine is not running.", retry_after_s=1)
        future: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        entry: Entry[Group, Payload, Result] = Entry(group, payload, cost, future, lane, background, first)
        queue = self._background if background else self._queue
        if first:
            queue.appendleft(entry)
        else:
            queue.append(entry)
        self._arrived.set()
        try:
            return await entry.future
        except asyncio.CancelledError:
            with contextlib.suppress(ValueError):  # already in a batch
                queue.remove(entry)
            raise

    async def _take_batches(self) -> None:
        answered = 0
        while True:
            await self._wait_for_decodes(answered=answered)
            while not (batch := self._next_batch()):
                self._arrived.clear()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self._background_pause_s() if self._background else None):
                        await self._arrived.wait()
                await self._wait_for_decodes(answered=0)
            answered = len(batch)
            await self._answer(batch)
            del batch  # what waits for the next entries keeps no model in memory

    async def _answer(self, batch: Sequence[Entry[Group, Payload, Result]]) -> None:
        started_at = time.monotonic()
        for entry in batch:
            entry.started_at = started_at
        results: Sequence[Result | Exception]
        try:
            loop = asyncio.get_running_loop()
            results = await loop.run_in_executor(self._worker, self._run_isolated, batch)
        except Exception as error:  # for example out of memory outside `run`; the next batch may succeed
            results = [_as_service_error(error)] * len(batch)
        took_s = time.monotonic() - started_at
        self._requests_since = not batch[0].background
        if batch[0].background:
            self._background_from = time.monotonic() + (BACKGROUND_SHARE - 1) * took_s
        self._measure(batch, took_s)
        for entry, result in zip(batch, results, strict=True):
            if entry.abandoned:
                continue
            if isinstance(result, Exception):
                entry.future.set_exception(result)
            else:
                entry.future.set_result(result)

    async def _wait_for_decodes(self, *, answered: int) -> None:
        """Let entries that are being decoded join the next batch, while it has room and every core is decoding.

        If no other request waits, they come before the background too. The last few decodes have a little more time.
        After a batch of several entries, their callers first have time to send the next request.
        """
        if self.pending_decodes is None:
            return
        started_at = time.monotonic()
        linger_s = LINGER_PER_JOB_S * answered if answered > 1 else 0.0
        until_s = -DECODE_TAIL_S
        while self.queued < self.max_batch and not self._is_urgent:
            waited_s = time.monotonic() - started_at
            pending = self.pending_decodes()
            if pending >= self.cores or (pending and not self._queue):
                until_s = waited_s
            comes = pending or not self._queue or self.admitted > self.queued
            pause_s = max(linger_s, until_s + DECODE_TAIL_S if comes else 0.0)
            if waited_s >= min(pause_s, MAX_DECODE_WAIT_S):
                return
            await asyncio.sleep(POLL_S)

    @property
    def _is_urgent(self) -> bool:
        return bool(self._queue) and self._queue[0].first

    def _background_pause_s(self) -> float:
        return max(0.0, self._background_from - time.monotonic()) if self._requests_since else 0.0

    def _next_batch(self) -> list[Entry[Group, Payload, Result]]:
        self._batches += 1
        queues = [(self._queue, self.max_batch)]
        if not self._background_pause_s():
            is_turn = self._batches % BACKGROUND_SHARE == 0 and not self._is_urgent
            queues.insert(0 if is_turn else 1, (self._background, 1))
        for queue, most in queues:
            if batch := self._take(queue, most):
                return batch
        return []

    def _take(
        self, queue: deque[Entry[Group, Payload, Result]], most: int
    ) -> list[Entry[Group, Payload, Result]]:
        """Entries of the group whose last batch is longest ago: each lane's first, then its second, while they fit.

        They cost at most `most` together, or else it is one. Abandoned entries are dropped.
        """
        waiting = [entry for entry in queue if not entry.abandoned]
        if not waiting:
            queue.clear()
            return []
        group = self._next_group(waiting)
        before = Counter[Hashable]()
        turns = list[tuple[int, Entry[Group, Payload, Result]]]()
        for entry in waiting:
            if entry.group == group:
                turns.append((before[entry.lane], entry))
                before[entry.lane] += 1
        batch: list[Entry[Group, Payload, Result]] = []
        cost = 0
        for _, entry in sorted(turns, key=itemgetter(0)):
            if batch and cost + entry.cost > most:
                break
            batch.append(entry)
            cost += entry.cost
        taken = set(map(id, batch))
        queue.clear()
        queue.extend(entry for entry in waiting if id(entry) not in taken)
        return batch

    def _next_group(self, waiting: Sequence[Entry[Group, Payload, Result]]) -> Group:
        """The group whose last batch is longest ago, unless an entry jumped the queue.

        A group that comes back is remembered as long as another one waits that was served before it. Otherwise groups
        that come and go would always be first.
        """
        served = {
            entry.group: self._served.get(entry.group, 0) for entry in (*self._queue, *self._background)
        }
        group = (
            waiting[0].group
            if waiting[0].first
            else min((entry.group for entry in waiting), key=served.__getitem__)
        )
        oldest = min(served.values())
        remembered = {known: number for known, number in self._served.items() if number > oldest}
        self._served = remembered | served | {group: self._batches}
        return group

    def _run_isolated(self, batch: Sequence[Entry[Group, Payload, Result]]) -> Sequence[Result | Exception]:
        try:
            return self.run(batch[0].group, batch)
        except Exception as error:
            if len(batch) == 1 or all(entry.abandoned for entry in batch):
                return [_as_service_error(error)] * len(batch)
        return [result for entry in batch for result in self._run_isolated([entry])]

    def _measure(self, batch: Sequence[Entry[Group, Payload, Result]], seconds: float) -> None:
        self._recent_items = RATE_MEMORY * self._recent_items + sum(entry.cost for entry in batch)
        self._recent_s = RATE_MEMORY * self._recent_s + seconds
        if self.on_batch is not None:
            self.on_batch(batch)


def _as_service_error(error: Exception) -> Exception:
    if isinstance(error, ServiceError):
        return error
    if isinstance(error, MemoryError) or "allocate memory" in str(error):
        out_of_memory = OutOfMemory()
        out_of_memory.__cause__ = error
        return out_of_memory
    shown: ServiceError = InternalError(
        "The model could not compute this request; the server's log says why."
    )
    if "out of memory" in str(error).lower() or "CUBLAS_STATUS_ALLOC_FAILED" in str(error):
        shown = Overloaded(
            "The device ran out of memory for this request; send fewer items.", retry_after_s=1
        )
    shown.__cause__ = error  # the error handler logs it, because it knows the request's id
    return shown
