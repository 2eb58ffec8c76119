"""Threads that end: for what blocks, or computes beside the forward thread without an OpenMP team of its own."""

import asyncio
import contextlib
import threading
from collections.abc import Callable
from typing import TypeVar

import torch

Result = TypeVar("Result")


async def in_own_thread(call: Callable[[], Result], name: str) -> Result:
    """Wait for `call`, run in a thread of its own.

    One that hangs holds up nobody but its caller: neither a pool that others wait for nor the process's end.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[Result] = loop.create_future()

    def settle(result: Result | None, error: BaseException | None) -> None:
        if future.done():
            return
        if error is None:
            future.set_result(result)  # type: ignore[arg-type]
        else:
            future.set_exception(error)

    def work() -> None:
        result, error = None, None
        try:
            result = call()
        except BaseException as raised:
            error = raised
        with contextlib.suppress(RuntimeError):  # the loop was closed meanwhile
            loop.call_soon_threadsafe(settle, result, error)

    threading.Thread(target=work, name=name, daemon=True).start()
    return await future


def with_one_torch_thread(call: Callable[[], Result], threads: int) -> Result:
    """Run `call` with one intra-op thread in this thread, then let new threads have `threads` again.

    torch keeps the number by thread, and gives new ones the last that anybody set. With one, OpenMP makes no
    second team, which would slow the forward thread down (docs/decisions/0007-one-thread-computes.md).
    """
    torch.set_num_threads(1)
    try:
        return call()
    finally:
        torch.set_num_threads(threads)
