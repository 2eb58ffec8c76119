"""What a request computes is counted, and what it waits for is not."""

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context

import pytest

from sds_clip.app.time_spent import TimeSpent, counted, in_thread

A_WHILE_S = 0.05


def compute() -> int:
    end = time.thread_time() + A_WHILE_S
    while time.thread_time() < end:
        pass
    return 3


async def test_steps_count_and_waiting_does_not() -> None:
    async def work() -> int:
        compute()
        await asyncio.sleep(1)
        return compute()

    spent = TimeSpent()
    assert await counted(work(), spent) == 3
    assert 2 * A_WHILE_S <= spent.seconds < 1


async def test_threads_of_the_request_count_and_those_of_others_do_not() -> None:
    async def work() -> None:
        with ThreadPoolExecutor(1) as threads:
            context = copy_context()
            await asyncio.wrap_future(threads.submit(lambda: context.run(in_thread, compute)))

    spent, other = TimeSpent(), TimeSpent()
    await asyncio.gather(counted(work(), spent), counted(asyncio.sleep(0.1), other))
    assert spent.seconds >= A_WHILE_S > other.seconds
    assert in_thread(compute) == 3
    assert spent.seconds < 2 * A_WHILE_S


async def test_errors_and_cancellation_pass_through() -> None:
    ended = []

    async def work() -> None:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            compute()
            ended.append("cancelled")
            raise

    async def fail() -> None:
        await asyncio.sleep(0)
        raise ValueError("no")

    spent = TimeSpent()

    async def counting() -> None:
        await counted(work(), spent)

    task = asyncio.create_task(counting())
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended == ["cancelled"]
    assert spent.seconds >= A_WHILE_S
    with pytest.raises(ValueError, match="no"):
        await counted(fail(), spent)


async def test_a_timeout_within_ends_what_it_is_about() -> None:
    async def work() -> str:
        try:
            async with asyncio.timeout(0.01):
                await asyncio.sleep(3600)
        except TimeoutError:
            return "in time"
        return "too late"

    assert await counted(work(), TimeSpent()) == "in time"
