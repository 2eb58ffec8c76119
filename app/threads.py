"""Short-lived threads, for calls that block.

They also compute beside the forward thread, without an OpenMP team of their own.
"""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextvars import copy_context
from typing import TypeVar

import torch

from sds_clip.app.time_spent import in_thread

Result = TypeVar("Result")


async def in_own_thread(call: Callable[[], Result], name: str) -> Result:
    """Run `call` in a new thread and wait for it.

    A call that hangs delays only its caller: it blocks neither a shared pool nor the end of the process.
    """
    context = copy_context()
    future: Future[Result] = Future()
    future.set_running_or_notify_cancel()  # a caller that gives up does not stop the call

    def work() -> None:
        try:
            future.set_result(context.run(in_thread, call))
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=work, name=name, daemon=True).start()
    return await asyncio.wrap_future(future)


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
