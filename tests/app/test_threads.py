"""Calls in threads of their own, and callers that give up."""

import asyncio
import threading

import pytest

from sds_clip.app.threads import to_the_end


async def test_a_caller_that_is_cancelled_goes_on_only_when_the_call_has_ended() -> None:
    began, may_end, order = asyncio.Event(), threading.Event(), list[str]()
    loop = asyncio.get_running_loop()

    def call() -> None:
        loop.call_soon_threadsafe(began.set)
        may_end.wait()
        order.append("call")

    async def caller() -> None:
        try:
            await to_the_end(call, "slow")
        finally:
            order.append("caller")

    task = asyncio.create_task(caller())
    await began.wait()
    task.cancel()
    await asyncio.sleep(0)
    assert not order
    may_end.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert order == ["call", "caller"]


async def test_results_and_errors_reach_the_caller() -> None:
    assert await to_the_end(lambda: 5, "five") == 5
    with pytest.raises(ZeroDivisionError):
        await to_the_end(lambda: 1 // 0, "fails")
