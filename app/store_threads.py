"""Where requests use the database: in a few threads of their own, so that a slow one never holds up the event loop."""

import asyncio
import contextlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from app.errors import Unavailable
from app.store.errors import StoreUnavailable

Result = TypeVar("Result")

WAITING_PER_THREAD = 32


class StoreBusy(Unavailable):
    """Too many requests wait for the database."""

    code = "store_busy"


class StoreThreads:
    """Runs calls that use the store. Until `open` is set, whoever calls is told that the database is away."""

    def __init__(self, threads: int) -> None:
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="store")
        self._max_unfinished = threads * (1 + WAITING_PER_THREAD)
        self._unfinished = 0
        self.open = False
        """Whether the tables are there."""

    async def run(self, call: Callable[[], Result]) -> Result:
        """Wait for a call. One whose caller gives up is still done to its end if it has begun.

        Raises: StoreUnavailable, StoreBusy, what `call` raises.
        """
        if not self.open:
            raise StoreUnavailable
        if self._unfinished >= self._max_unfinished:
            raise StoreBusy("Too many requests wait for the database; try again.", retry_after_s=2)
        loop = asyncio.get_running_loop()
        self._unfinished += 1
        future = self._pool.submit(call)
        # A call counts until its thread is free again, not until its caller has gone.
        future.add_done_callback(lambda _: self._done_in(loop))
        return await asyncio.wrap_future(future)

    def close(self) -> None:
        """Take no more calls; those that wait are dropped."""
        self.open = False
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _done_in(self, loop: asyncio.AbstractEventLoop) -> None:
        with contextlib.suppress(RuntimeError):  # the loop was closed meanwhile
            loop.call_soon_threadsafe(self._done)

    def _done(self) -> None:
        self._unfinished -= 1
