"""What differs between the asynchronous and the blocking client: each function has a variant for both.

`make client` replaces async_sleep by sleep, in_thread by at_once, and each_in_thread by each_at_once.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


async def async_sleep(seconds: float) -> None:
    await asyncio.sleep(seconds)


def sleep(seconds: float) -> None:
    time.sleep(seconds)


async def in_thread(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run blocking file access or long computation off the event loop."""
    return await asyncio.to_thread(function, *args, **kwargs)


def at_once(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    return function(*args, **kwargs)


async def each_in_thread(chunks: Iterable[bytes]) -> AsyncIterator[bytes]:
    """Iterate over chunks, reading each off the event loop."""
    iterator = iter(chunks)
    while (chunk := await asyncio.to_thread(next, iterator, None)) is not None:
        yield chunk


def each_at_once(chunks: Iterable[bytes]) -> Iterator[bytes]:
    return iter(chunks)
