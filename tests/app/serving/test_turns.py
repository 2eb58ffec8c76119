"""Turns, with a clock of the test: what each key has in progress, alone and beside another."""

import asyncio
from contextlib import AsyncExitStack

import pytest

from sds_clip.app.serving import turns as turns_module
from sds_clip.app.serving.turns import ACTIVE_S, HALF_LIFE_S, TURN_S, Turns, give_way, meter

ITEM_S = TURN_S / 4  # so a turn has four items


MARGIN = 10_000  # so large that no wait ends by itself


@pytest.fixture(autouse=True)
def wide_margin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns_module, "MARGIN", MARGIN)


class Clock:
    now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


class Request:
    """A request that waits for its turn, and holds it until it ends."""

    def __init__(self, turns: Turns, key: str, items: int) -> None:
        self.began = False
        self._may_end = asyncio.Event()
        self.task = asyncio.create_task(self._run(turns, key, items))

    async def _run(self, turns: Turns, key: str, items: int) -> None:
        async with turns.take(key, items * ITEM_S):
            self.began = True
            await self._may_end.wait()

    async def end(self) -> None:
        self._may_end.set()
        await self.task
        await settled()


async def settled() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def requests(turns: Turns, key: str, *items: int) -> list[Request]:
    found = [Request(turns, key, each) for each in items]
    await settled()
    return found


def begun(requests: list[Request]) -> list[bool]:
    return [request.began for request in requests]


async def ended(*requests: Request) -> None:
    for request in requests:
        await request.end()


async def test_key_alone_has_everything_in_progress() -> None:
    turns = Turns()
    alone = await requests(turns, "alice", *[3] * 50)
    assert all(begun(alone))
    assert not turns.shared
    await ended(*alone)


async def test_keys_beside_each_other_have_a_turn_each_and_the_rest_waits_in_line() -> None:
    turns = Turns()
    async with turns.take("bob", 60 * ITEM_S):
        burst, *alice = await requests(turns, "alice", 16, 2, 2, 1, 100, 1)
        assert burst.began
        assert not any(begun(alice))
        await ended(burst)
        assert begun(alice) == [True, True, False, False, False]
        assert begun(await requests(turns, "carol", 1000)) == [True]
        await ended(alice[0])
        assert begun(alice) == [True, True, True, False, False]
        await ended(alice[1])  # the fifth would fit, but does not overtake
        assert begun(alice) == [True, True, True, False, False]
        await ended(alice[2])  # more than a turn, and then the only one
        assert begun(alice) == [True, True, True, True, False]
    await ended(*alice[3:])


async def test_key_that_asks_for_little_has_it_all_in_progress() -> None:
    turns = Turns()
    async with turns.take("bob", 60 * ITEM_S):
        alice = await requests(turns, "alice", *[4] * 4)
        assert all(begun(alice))
        (more,) = await requests(turns, "alice", 4)
        assert not more.began
        await ended(alice[0])
        assert more.began
        await ended(*alice[1:], more)


async def test_burst_is_larger_for_a_key_that_has_computed_less_than_all_others() -> None:
    turns = Turns(Clock())
    async with turns.take("bob", 200 * ITEM_S), turns.take("carol", 2000 * ITEM_S):
        alice = await requests(turns, "alice", *[6] * 7)
        assert begun(alice) == [True] * 6 + [
            False
        ]  # 42 items are more than a quarter of 200 less the 36 begun
        await ended(*alice)


async def test_burst_has_an_end_however_much_others_have_computed() -> None:
    turns = Turns(Clock())
    async with turns.take("bob", 100_000 * ITEM_S):
        alice = await requests(turns, "alice", *[6] * 20)
        assert begun(alice) == [True] * 13 + [False] * 7  # 78 items are less than twenty turns
        await ended(*alice)


async def test_key_counts_as_active_for_a_while_after_its_last_request() -> None:
    clock = Clock()
    turns = Turns(clock)
    async with turns.take("bob", 10 * ITEM_S):
        pass
    alice = await requests(turns, "alice", 17, 4, 4, 4)
    clock.now_s += ACTIVE_S / 2
    assert begun(alice) == [True, False, False, False]
    clock.now_s += ACTIVE_S
    await ended(alice[0])
    assert all(begun(alice))
    await ended(*alice[1:])


async def test_request_that_gives_up_leaves_the_line() -> None:
    turns = Turns()
    async with AsyncExitStack() as held:
        await held.enter_async_context(turns.take("bob", 100 * ITEM_S))
        first, gone, next_ = await requests(turns, "alice", 17, 4, 4)
        gone.task.cancel()
        await settled()
        await ended(first)
        assert next_.began
        assert not gone.began
        await ended(next_)


async def test_key_that_has_computed_more_gives_way_for_as_long_as_the_others_should_take() -> None:
    clock = Clock()
    turns = Turns(clock)
    (first,) = await requests(turns, "alice", 4)
    await first.end()
    bob, other = await requests(turns, "bob", 2), await requests(turns, "bob", 1)
    alice = await requests(turns, "alice", 1, 1)
    assert begun([*bob, *other, *alice]) == [True, True, False, False]
    await ended(*bob)
    assert begun(alice) == [False, False]
    await ended(*other)
    assert begun(alice) == [True, True]
    await ended(*alice)


async def test_giving_way_ends_when_the_others_are_due(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns_module, "MARGIN", 1)
    turns = Turns(Clock())
    (first,) = await requests(turns, "alice", 4)
    await first.end()
    (other,) = await requests(turns, "bob", 1)
    (late,) = await requests(turns, "alice", 1)
    async with asyncio.timeout(60):
        while not late.began:
            await asyncio.sleep(0.001)
    await ended(other, late)


async def test_nobody_gives_way_to_requests_that_are_overdue() -> None:
    """They may wait for a URL that does not answer."""
    clock = Clock()
    turns = Turns(clock)
    async with turns.take("alice", 1000 * ITEM_S):
        pass
    slow = await requests(turns, "bob", 2, 1)
    clock.now_s += MARGIN * 2 * ITEM_S
    (waiting,) = await requests(turns, "alice", 1)
    assert not waiting.began
    await ended(slow[0])
    assert not waiting.began
    clock.now_s += MARGIN * ITEM_S
    (begun_at_once,) = await requests(turns, "carol", 1)
    await ended(begun_at_once)
    assert waiting.began
    await ended(slow[1], waiting)


async def test_nobody_gives_way_to_what_takes_longer_than_a_turn_and_than_the_request() -> None:
    turns = Turns()
    async with turns.take("alice", 1000 * ITEM_S):
        pass
    bob = await requests(turns, "bob", 5)
    alice = await requests(turns, "alice", 1)
    assert begun(alice) == [True]
    await ended(*alice)
    alice = await requests(turns, "alice", 5)
    assert begun(alice) == [False]
    await ended(*bob, *alice)


async def test_what_a_key_computed_long_ago_counts_little() -> None:
    clock = Clock()
    turns = Turns(clock)
    for key, items in ("alice", 100), ("bob", 20):
        await ended(*await requests(turns, key, items))
    clock.now_s += HALF_LIFE_S * 4
    bob = await requests(turns, "bob", 10)
    alice = await requests(turns, "alice", 1)
    assert begun(alice) == [True]
    await ended(*alice, *bob)


async def test_parts_of_a_request_and_what_it_measures_count() -> None:
    turns = Turns()
    async with turns.take("alice", ITEM_S):
        bob = await requests(turns, "bob", 2)
        part = asyncio.create_task(give_way())
        await settled()
        assert part.done()  # bob has computed more
        meter()(10 * ITEM_S)
        part = asyncio.create_task(give_way())
        await settled()
        assert not part.done()
        await ended(*bob)
        assert part.done()
