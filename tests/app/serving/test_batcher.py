"""The batcher, with a worker that doubles numbers and remembers what it was given."""

import asyncio
import gc
import threading
import time
import weakref
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest

from sds_clip.app.errors import InternalError, KeyLimitReached, OutOfMemory, Overloaded, Unavailable
from sds_clip.app.serving.batcher import Batcher, Entry

Work = Entry[str, int, int]


class Doubler:
    """Doubles payloads; waits at `gate`, fails on negative numbers, and keeps every batch it was given."""

    def __init__(self) -> None:
        self.batches: list[tuple[str, list[int]]] = []
        self.gate = threading.Event()
        self.gate.set()
        self._reached = threading.Event()

    def __call__(self, key: str, jobs: Sequence[Work]) -> list[int | Exception]:
        self._reached.set()
        assert self.gate.wait(30)
        payloads = [job.payload for job in jobs]
        self.batches.append((key, payloads))
        if any(payload < 0 for payload in payloads):
            raise ValueError("negative")
        return [2 * payload for payload in payloads]

    async def reached(self) -> None:
        """Wait until a batch is at the gate."""
        assert await asyncio.to_thread(self._reached.wait, 30)


@asynccontextmanager
async def batching(
    run: Callable[..., Sequence[int | Exception]], **options: Any
) -> AsyncIterator[Batcher[str, int, int]]:
    batcher: Batcher[str, int, int] = Batcher(run, **{"max_batch": 4, "max_queue": 8, **options})
    batcher.start()
    try:
        yield batcher
    finally:
        await batcher.close()


async def queued_behind_a_closed_gate(
    batcher: Batcher[str, int, int], doubler: Doubler, jobs: list[tuple[str, int, int]]
) -> list["asyncio.Task[int]"]:
    """Submit (key, payload, cost) jobs that all wait behind one that is being computed."""
    doubler.gate.clear()
    first = asyncio.create_task(batcher.submit("first", 0, cost=1))
    await doubler.reached()
    tasks = [asyncio.create_task(batcher.submit(key, payload, cost=cost)) for key, payload, cost in jobs]
    await asyncio.sleep(0)
    return [first, *tasks]


async def test_idle_batcher_runs_a_single_job_at_once() -> None:
    doubler = Doubler()
    async with batching(doubler) as batcher:
        assert await batcher.submit("a", 21, cost=1) == 42
    assert doubler.batches == [("a", [21])]


async def test_jobs_that_wait_together_are_batched_up_to_the_limit() -> None:
    doubler = Doubler()
    async with batching(doubler) as batcher:
        tasks = await queued_behind_a_closed_gate(batcher, doubler, [("a", n, 1) for n in range(1, 7)])
        doubler.gate.set()
        assert await asyncio.gather(*tasks) == [0, 2, 4, 6, 8, 10, 12]
    assert doubler.batches == [("first", [0]), ("a", [1, 2, 3, 4]), ("a", [5, 6])]


async def test_a_batch_never_mixes_keys() -> None:
    doubler = Doubler()
    async with batching(doubler) as batcher:
        tasks = await queued_behind_a_closed_gate(
            batcher, doubler, [("old", 1, 1), ("old", 2, 1), ("new", 3, 1), ("old", 4, 1)]
        )
        doubler.gate.set()
        await asyncio.gather(*tasks)
    assert doubler.batches[1:] == [("old", [1, 2, 4]), ("new", [3])]


async def test_keys_take_turns() -> None:
    doubler = Doubler()
    async with batching(doubler) as batcher:
        many = [("hot", number, 1) for number in range(1, 9)]
        tasks = await queued_behind_a_closed_gate(batcher, doubler, [*many, ("cold", 9, 1)])
        doubler.gate.set()
        await asyncio.gather(*tasks)
    assert doubler.batches[1:] == [("hot", [1, 2, 3, 4]), ("cold", [9]), ("hot", [5, 6, 7, 8])]


async def test_keys_that_come_and_go_do_not_starve_one_that_waits() -> None:
    doubler = Doubler()

    async def client(key: str) -> None:
        for number in range(6):
            await batcher.submit(key, number, cost=1)

    async with batching(doubler) as batcher:
        await batcher.submit("hot", 0, cost=1)
        await asyncio.gather(client("one"), client("other"), batcher.submit("hot", 1, cost=1))
    keys = [key for key, _ in doubler.batches]
    assert keys.index("hot", 1) <= 3


async def test_waiting_batcher_keeps_no_model_in_memory() -> None:
    class Model:
        pass

    model = Model()
    gone = weakref.ref(model)
    batcher: Batcher[str, Model, int] = Batcher(lambda key, jobs: [1] * len(jobs), max_batch=4, max_queue=8)
    batcher.start()
    await batcher.submit("a", model, cost=1)
    del model
    await asyncio.sleep(0)
    gc.collect()
    assert gone() is None
    await batcher.close()


async def test_lanes_take_turns_within_a_batch() -> None:
    doubler = Doubler()
    async with batching(doubler) as batcher:
        doubler.gate.clear()
        running = asyncio.create_task(batcher.submit("first", 0, cost=1))
        await doubler.reached()
        lanes = ["hot"] * 6 + ["cold", "cool", "cold"]
        tasks = [
            asyncio.create_task(batcher.submit("a", number, cost=1, lane=lane))
            for number, lane in enumerate(lanes, 1)
        ]
        await asyncio.sleep(0)
        doubler.gate.set()
        await asyncio.gather(running, *tasks)
    assert doubler.batches[1:] == [("a", [1, 7, 8, 2]), ("a", [3, 9, 4, 5]), ("a", [6])]


async def test_lane_that_waits_for_nothing_gets_in_beside_a_full_queue() -> None:
    async with batching(Doubler(), max_queue=4) as batcher:
        with batcher.admit(4, lane="hot"):
            with pytest.raises(Overloaded), batcher.admit(1, lane="hot"):
                pytest.fail("admitted a fifth item of one lane")
            with batcher.admit(1, lane="cold"):
                with pytest.raises(Overloaded), batcher.admit(1, lane="cold"):
                    pytest.fail("the queue is full, and the lane has its place")
                with batcher.admit(3, lane="cool"), pytest.raises(Overloaded), batcher.admit(1, lane="new"):
                    pytest.fail("admitted more than the queue and a batch")


async def test_a_job_larger_than_a_batch_runs_alone() -> None:
    doubler = Doubler()
    async with batching(doubler) as batcher:
        tasks = await queued_behind_a_closed_gate(batcher, doubler, [("a", 1, 1), ("a", 2, 99), ("a", 3, 1)])
        doubler.gate.set()
        await asyncio.gather(*tasks)
    assert doubler.batches[1:] == [("a", [1]), ("a", [2]), ("a", [3])]


async def test_a_failing_job_takes_no_other_down() -> None:
    doubler = Doubler()
    async with batching(doubler) as batcher:
        tasks = await queued_behind_a_closed_gate(batcher, doubler, [("a", 1, 1), ("a", -1, 1), ("a", 3, 1)])
        doubler.gate.set()
        first, one, failed, three = await asyncio.gather(*tasks, return_exceptions=True)
    assert (first, one, three) == (0, 2, 6)
    assert isinstance(failed, InternalError)


async def test_a_failure_is_followed_by_answers() -> None:
    async with batching(Doubler()) as batcher:
        with pytest.raises(InternalError):
            await batcher.submit("a", -1, cost=1)
        assert await batcher.submit("a", 1, cost=1) == 2
        assert batcher.alive


@pytest.mark.parametrize(
    "message",
    [
        "CUDA out of memory. Tried to allocate 20 GiB",
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `x`",
    ],
)
async def test_out_of_memory_sheds_the_request(message: str) -> None:
    def out_of_memory(key: str, jobs: Sequence[Work]) -> list[int | Exception]:
        raise RuntimeError(message)

    async with batching(out_of_memory) as batcher:
        with pytest.raises(Overloaded):
            await batcher.submit("a", 1, cost=1)


async def test_lack_of_memory_is_an_answer_and_the_next_job_is_computed() -> None:
    errors: list[Exception] = [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory")]

    def run(key: str, jobs: Sequence[Work]) -> list[int]:
        if errors:
            raise errors.pop()
        return [2 * job.payload for job in jobs]

    async with batching(run) as batcher:
        for _ in range(2):
            with pytest.raises(OutOfMemory):
                await batcher.submit("a", 1, cost=1)
        assert await batcher.submit("a", 1, cost=1) == 2


async def test_a_cancelled_job_frees_its_payload_at_once() -> None:
    doubler = Doubler()
    async with batching(doubler) as batcher:
        first, one = await queued_behind_a_closed_gate(batcher, doubler, [("a", 1, 5)])
        assert batcher.queued == 5
        one.cancel()
        await asyncio.sleep(0)
        assert batcher.queued == 0
        doubler.gate.set()
        await first


async def test_a_cancelled_job_is_dropped_before_it_is_computed() -> None:
    doubler = Doubler()
    async with batching(doubler) as batcher:
        first, one, two = await queued_behind_a_closed_gate(batcher, doubler, [("a", 1, 1), ("a", 2, 1)])
        one.cancel()
        await asyncio.sleep(0)
        doubler.gate.set()
        assert await asyncio.gather(first, two) == [0, 4]
    assert doubler.batches == [("first", [0]), ("a", [2])]


async def test_background_jobs_yield_to_requests_but_are_not_starved() -> None:
    doubler = Doubler()
    async with batching(doubler, max_batch=1) as batcher:
        tasks = await queued_behind_a_closed_gate(batcher, doubler, [("a", n, 1) for n in range(1, 7)])
        slow = asyncio.create_task(batcher.submit("a", 100, cost=1, background=True))
        await asyncio.sleep(0)
        doubler.gate.set()
        await asyncio.gather(slow, *tasks)
    order = [payloads[0] for _, payloads in doubler.batches]
    assert 1 < order.index(100) < len(order) - 1


async def test_a_background_batch_is_one_job_so_a_request_waits_for_no_more() -> None:
    doubler = Doubler()
    async with batching(doubler) as batcher:
        first, *_ = await queued_behind_a_closed_gate(batcher, doubler, [])
        slow = [asyncio.create_task(batcher.submit("a", n, cost=1, background=True)) for n in (1, 2, 3)]
        await asyncio.sleep(0)
        doubler.gate.set()
        await asyncio.gather(first, *slow)
    assert doubler.batches[1:] == [("a", [1]), ("a", [2]), ("a", [3])]


async def test_beside_requests_the_background_takes_a_quarter_of_the_time() -> None:
    began: list[float] = []
    ended: list[float] = []

    def run(key: str, jobs: Sequence[Work]) -> list[int | Exception]:
        if jobs[0].background:
            began.append(time.monotonic())
            time.sleep(0.05)
            ended.append(time.monotonic())
        return [0] * len(jobs)

    async with batching(run) as batcher:
        await batcher.submit("a", 1, cost=1, background=True)
        await batcher.submit("a", 2, cost=1)
        await batcher.submit("a", 3, cost=1, background=True)
        await batcher.submit("a", 4, cost=1, background=True)
    assert began[1] - ended[0] >= 3 * 0.05


async def test_an_image_being_decoded_comes_before_the_background(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sds_clip.app.serving.batcher.MAX_DECODE_WAIT_S", 60)
    decoding = threading.Event()
    doubler = Doubler()
    async with batching(doubler, pending_decodes=lambda: int(decoding.is_set()), cores=2) as batcher:
        first, *_ = await queued_behind_a_closed_gate(batcher, doubler, [])
        slow = asyncio.create_task(batcher.submit("a", 1, cost=1, background=True))
        await asyncio.sleep(0)
        decoding.set()
        doubler.gate.set()
        await first
        decoded = asyncio.create_task(batcher.submit("a", 2, cost=1))
        await asyncio.sleep(0)
        decoding.clear()
        await asyncio.gather(slow, decoded)
    assert doubler.batches[1:] == [("a", [2]), ("a", [1])]


async def test_a_full_queue_refuses_and_says_when_to_come_back() -> None:
    def slow(key: str, jobs: Sequence[Work]) -> list[int | Exception]:
        time.sleep(0.3)
        return [0] * len(jobs)

    async with batching(slow) as batcher:
        await batcher.submit("a", 1, cost=1)
        with batcher.admit(8), pytest.raises(Overloaded) as refused, batcher.admit(1):
            pytest.fail("admitted a ninth item")
        # 8 items at 0.3 s each are 2.4 s; a busy machine takes longer.
        assert 3 <= refused.value.retry_after_s < 60
        with batcher.admit(8):
            pass


async def test_one_caller_cannot_fill_the_queue() -> None:
    async with batching(Doubler(), max_queue_per_key=4) as batcher:
        with batcher.admit(3, "alice"), batcher.admit(1, "alice"):
            with (
                pytest.raises(KeyLimitReached, match="max_queue_per_key, which is 4"),
                batcher.admit(1, "alice"),
            ):
                pytest.fail("admitted a fifth item of one caller")
            with (
                pytest.raises(KeyLimitReached, match="max_queue_per_key, which is 4"),
                batcher.admit(99, "alice"),
            ):
                pytest.fail("told that the queue is full, which is so for this caller only")
            with batcher.admit(2, "bob"), batcher.admit(2):
                assert batcher.admitted == 8
        with batcher.admit(8, "alice"):  # larger than its share, and its only one
            pass


async def test_a_request_larger_than_the_queue_is_let_in_when_nothing_waits() -> None:
    async with batching(Doubler()) as batcher:
        with batcher.admit(100):
            assert batcher.admitted == 100
        assert batcher.admitted == 0


async def test_draining_refuses_new_work_and_waits_for_the_admitted() -> None:
    doubler = Doubler()
    async with batching(doubler) as batcher:

        async def request() -> int:
            with batcher.admit(1):
                return await batcher.submit("a", 1, cost=1)

        doubler.gate.clear()
        accepted = asyncio.create_task(request())
        await doubler.reached()
        drained = asyncio.create_task(batcher.drain(10))
        while not batcher.draining:
            await asyncio.sleep(0)
        assert not drained.done()
        with pytest.raises(Unavailable), batcher.admit(1):
            pytest.fail("admitted while draining")
        doubler.gate.set()
        assert await accepted == 2
        assert await drained


async def test_drain_gives_up_after_its_timeout() -> None:
    async with batching(Doubler()) as batcher:
        with batcher.admit(1):
            assert not await batcher.drain(0.01)


async def test_closing_answers_what_still_waits() -> None:
    doubler = Doubler()
    async with batching(doubler) as batcher:
        _, waiting = await queued_behind_a_closed_gate(batcher, doubler, [("a", 1, 1)])
        await batcher.close()
        doubler.gate.set()
        with pytest.raises(Unavailable):
            await waiting
        with pytest.raises(Unavailable):
            await batcher.submit("a", 1, cost=1)


async def test_where_cores_are_shared_a_batch_waits_for_what_is_being_decoded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("sds_clip.app.serving.batcher.MAX_DECODE_WAIT_S", 30.0)

    doubler = Doubler()
    decoding, asked = 1, 0

    def pending() -> int:
        nonlocal asked
        asked += 1
        return decoding

    async with batching(doubler, pending_decodes=pending) as batcher:
        first = asyncio.create_task(batcher.submit("a", 1, cost=1))
        await asyncio.sleep(0)
        asked = 0
        while asked < 3:
            await asyncio.sleep(0)
        assert doubler.batches == []
        second = asyncio.create_task(batcher.submit("a", 2, cost=1))
        await asyncio.sleep(0)
        decoding = 0
        assert await asyncio.gather(first, second) == [2, 4]
    assert doubler.batches == [("a", [1, 2])]


async def test_a_batch_waits_for_an_image_that_is_decoded_and_on_its_way(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("MAX_DECODE_WAIT_S", "DECODE_TAIL_S"):
        monkeypatch.setattr(f"sds_clip.app.serving.batcher.{name}", 3600.0)
    doubler = Doubler()
    answers = iter([1, 1])

    async with batching(doubler, pending_decodes=lambda: next(answers, 0)) as batcher:
        with batcher.admit(1), batcher.admit(1):
            first = asyncio.create_task(batcher.submit("a", 1, cost=1))
            await asyncio.sleep(0.05)  # the batcher looks each millisecond
            assert doubler.batches == []
            second = asyncio.create_task(batcher.submit("a", 2, cost=1))
            assert await asyncio.gather(first, second) == [2, 4]
    assert doubler.batches == [("a", [1, 2])]


async def test_a_batch_does_not_wait_for_ever_nor_once_it_is_full() -> None:
    doubler = Doubler()
    async with batching(doubler, pending_decodes=lambda: 1) as batcher:
        assert await batcher.submit("a", 1, cost=1) == 2
        tasks = await queued_behind_a_closed_gate(batcher, doubler, [("a", n, 1) for n in range(1, 5)])
        doubler.gate.set()
        assert await asyncio.gather(*tasks) == [0, 2, 4, 6, 8]


async def test_a_first_job_does_not_wait_for_decodes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sds_clip.app.serving.batcher.MAX_DECODE_WAIT_S", 3600.0)
    doubler = Doubler()
    async with batching(doubler, pending_decodes=lambda: 1) as batcher:
        waiting = asyncio.create_task(batcher.submit("a", 1, cost=1))
        async with asyncio.timeout(30):
            assert await batcher.submit("b", 2, cost=1, first=True) == 4
        assert doubler.batches == [("b", [2])]
        assert not waiting.done()
        waiting.cancel()


async def test_first_jobs_do_not_wait_for_background_ones() -> None:
    doubler = Doubler()
    async with batching(doubler, max_batch=1) as batcher:
        tasks = await queued_behind_a_closed_gate(batcher, doubler, [])
        tasks.append(asyncio.create_task(batcher.submit("a", 100, cost=1, background=True)))
        tasks += [asyncio.create_task(batcher.submit("a", n, cost=1, first=True)) for n in range(1, 7)]
        await asyncio.sleep(0)
        doubler.gate.set()
        await asyncio.gather(*tasks)
    assert doubler.batches[-1] == ("a", [100])
