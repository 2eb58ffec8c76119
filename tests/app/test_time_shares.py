"""Shares of time, by a clock that stands still unless the test moves it."""

import asyncio
import time

import pytest

from sds_clip.app.budgets import Rate
from sds_clip.app.edge import time_shares
from sds_clip.app.edge.time_shares import GUESS_S, TimeShares
from sds_clip.app.errors import KeyLimitReached
from sds_clip.app.threads import in_own_thread

SHARE = 0.1


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def shares(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> TimeShares:
    """Two keys are active, alice and bob."""
    monkeypatch.setattr(time_shares, "ACTIVE_S", 3600)
    made = TimeShares(Rate(SHARE, clock=clock))
    made.see("alice")
    made.see("bob")
    return made


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How long each request waited. None does."""
    asked: list[float] = []

    async def sleep(seconds: float) -> None:
        asked.append(seconds)

    monkeypatch.setattr(time_shares, "sleep", sleep)
    return asked


def compute_for(seconds: float) -> None:
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        pass


async def compute() -> None:
    """Compute 0.2 s, a half in the event loop and a half in a thread."""
    compute_for(0.1)
    await in_own_thread(lambda: compute_for(0.1), "compute")


async def nothing() -> None:
    pass


async def test_request_waits_for_what_its_key_has_computed_and_another_key_does_not(
    shares: TimeShares, waits: list[float], clock: Clock
) -> None:
    await shares.run("alice", compute)
    await shares.run("alice", nothing)
    await shares.run("bob", nothing)
    assert waits[0] == waits[2] == 0
    assert 1 <= waits[1] < 5  # 0.1 s too much at 0.1 a second, and what a busy machine adds
    clock.now += 60
    await shares.run("alice", nothing)
    assert waits[3] == 0


async def test_requests_that_come_together_wait_for_each_other(
    shares: TimeShares, waits: list[float]
) -> None:
    async def hold() -> None:
        await asyncio.Event().wait()

    running = [asyncio.create_task(shares.run("alice", hold)) for _ in range(60)]
    await asyncio.wait(running, timeout=0.05)
    expected = [max(0.0, (number * GUESS_S - SHARE) / SHARE) for number in range(60)]
    assert waits == pytest.approx(expected, abs=0.1)  # they compute a little
    for task in running:
        task.cancel()
    await asyncio.gather(*running, return_exceptions=True)
    await shares.run("alice", nothing)
    assert waits[-1] == 0  # they have computed nothing


async def test_request_that_would_wait_long_is_refused(shares: TimeShares, waits: list[float]) -> None:
    shares._seconds.owe("alice", SHARE * 20)
    with pytest.raises(
        KeyLimitReached, match=r"share_of_time, which is 0\.1; other keys are active"
    ) as refused:
        await shares.run("alice", nothing)
    assert refused.value.retry_after_s == 9
    await shares.run("bob", nothing)


async def test_what_a_given_up_request_computes_in_its_thread_is_charged_too(
    shares: TimeShares, waits: list[float]
) -> None:
    ended = asyncio.Event()

    async def work() -> None:
        def call() -> None:
            compute_for(0.5)
            loop.call_soon_threadsafe(ended.set)

        loop = asyncio.get_running_loop()
        await in_own_thread(call, "compute")

    given_up = asyncio.create_task(shares.run("alice", work))
    await asyncio.wait([given_up], timeout=0.01)
    given_up.cancel()
    await asyncio.wait([given_up])
    await ended.wait()
    await asyncio.wait(
        [asyncio.create_task(asyncio.Event().wait())], timeout=0.2
    )  # until the thread has said so
    await shares.run("alice", nothing)
    assert waits[-1] >= 3


async def test_key_alone_never_waits(waits: list[float], clock: Clock) -> None:
    shares = TimeShares(Rate(SHARE, clock=clock))
    shares.see("alice")
    for _ in range(3):
        await shares.run("alice", compute)
    assert waits == []
