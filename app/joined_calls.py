"""Calls that are joined: whoever asks for what is being computed waits for that computation."""

import asyncio
from collections.abc import Callable, Coroutine, Hashable
from typing import Any, Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
Result = TypeVar("Result")


class JoinedCalls(Generic[Key, Result]):
    """Equal calls that overlap are made once. Only the event loop uses it."""

    def __init__(self) -> None:
        self._running: dict[Key, asyncio.Task[Result]] = {}

    def __contains__(self, key: Key) -> bool:
        return key in self._running

    def __len__(self) -> int:
        return len(self._running)

    async def close(self) -> None:
        """Cancel the calls that run."""
        tasks = list(self._running.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def run(self, key: Key, call: Callable[[], Coroutine[Any, Any, Result]], name: str) -> Result:
        """The result of the call that runs under this key, or of a new one.

        A caller that gives up does not stop the call.
        """
        task = self._running.get(key)
        if task is None:
            task = self._running[key] = asyncio.create_task(call(), name=name)
            task.add_done_callback(lambda task: self._end(key, task))
        return await asyncio.shield(task)

    def _end(self, key: Key, task: "asyncio.Task[Result]") -> None:
        del self._running[key]
        if not task.cancelled():
            task.exception()  # marks it as retrieved, because every caller may have given up
