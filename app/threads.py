"""Short-lived threads, for calls that block.

They also compute beside the forward thread, without an OpenMP team of their own.
"""

import asyncio
import contextlib
import threading
from collections.abc import Callable
from contextvars import copy_context
from typing import TypeVar

import torch

from sds_clip.app.time_spent import in_thread

Result = TypeVar("Result")


async def in_own_thread(call: Callable[[], Result], name: str) -> Result:
    """Run `call` in a new thread and wait for it.

    A call that hangs delays only its caller: it blocks neither a shared pool nor the end of the process.
    """
    loop = asyncio.get_running_loop()
    context = copy_context()
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
            result = context.run(in_thread, call)
        except BaseException as raised:
            error = raised
        with contextlib.suppress(RuntimeError):  # the loop was closed meanwhile
            loop.call_soon_threadsafe(settle, result, error)

    threading.Thread(target=work, name=name, daemon=True).start()
    return await future


async def to_the_end(call: Callable[[], Result], name: str) -> Result:
    """Run `call` in a new thread. A caller that is cancelled goes on only when the call has ended."""
    running = asyncio.ensure_future(in_own_thread(call, name))
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        await asyncio.wait([running])
        raise


def with_one_torch_thread(call: Callable[[], Result], threads: int) -> Result:
    """Run `call` with one intra-op thread in this thread, then restore `threads` for new threads.

    torch keeps the number for each thread, and a new thread takes the number that was set last. With a single
    thread, OpenMP starts no second team, which would slow the forward thread
    (docs/decisions/0007-one-thread-computes.md).
    """
    torch.set_num_threads(1)
    try:
        return call()
    finally:
        torch.set_num_threads(threads)
