"""Runs database calls in a few threads of their own, so that a slow database never blocks the event loop."""

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from functools import partial, wraps
from threading import BoundedSemaphore
from typing import Concatenate, ParamSpec, Protocol, TypeVar

from sds_clip.app.errors import StoreBusy, StoreUnavailable
from sds_clip.app.time_spent import in_thread

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")
Service = TypeVar("Service", bound="HasThreads")

WAITING_PER_THREAD = 32


class StoreThreads:
    """Runs calls that use the store. Until `open` is set, every call raises StoreUnavailable."""

    def __init__(self, threads: int) -> None:
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="store")
        self._free = BoundedSemaphore(threads * (1 + WAITING_PER_THREAD))
        self.open = False
        """Whether the tables exist."""

    async def run(
        self, call: Callable[Arguments, Result], *args: Arguments.args, **kwargs: Arguments.kwargs
    ) -> Result:
        """Run `call` in a thread and wait for it.

        A call that has begun is finished even if its caller gives up.

        Raises: StoreUnavailable, StoreBusy, and whatever `call` raises.
        """
        if not self.open:
            raise StoreUnavailable
        if not self._free.acquire(blocking=False):
            raise StoreBusy("Too many requests are waiting for the database; try again.", retry_after_s=2)
        # In the caller's context, which has the request's id, its span and the time that it has spent.
        context = copy_context()
        future = self._pool.submit(lambda: context.run(in_thread, partial(call, *args, **kwargs)))
        # A call counts until its thread is free again, not only until its caller has gone.
        future.add_done_callback(lambda _: self._free.release())
        return await asyncio.wrap_future(future)

    def close(self) -> None:
        """Accept no more calls, and drop those that are waiting."""
        self.open = False
        self._pool.shutdown(wait=False, cancel_futures=True)


class HasThreads(Protocol):
    """A service whose methods use the store."""

    _threads: StoreThreads


def in_store_thread(
    method: Callable[Concatenate[Service, Arguments], Result],
) -> Callable[Concatenate[Service, Arguments], Awaitable[Result]]:
    """Make a method that uses the store one to await, which runs in the service's threads.

    It then also raises StoreBusy.
    """

    @wraps(method)
    async def run(service: Service, /, *args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        return await service._threads.run(method, service, *args, **kwargs)

    return run
