"""Equal calls that overlap are made once, and whoever gives up takes nothing from the others."""

import asyncio

from sds_clip.app.joined_calls import JoinedCalls


async def test_calls_that_overlap_are_joined_by_key() -> None:
    joined, begun, go_on = JoinedCalls[str, str](), list[str](), asyncio.Event()

    async def ask(key: str) -> str:
        async def call() -> str:
            begun.append(key)
            await go_on.wait()
            return key.upper()

        return await joined.run(key, call, key)

    tasks = [asyncio.create_task(ask(key)) for key in ("a", "a", "b", "a")]
    await asyncio.sleep(0)
    tasks[0].cancel()
    go_on.set()
    answers = await asyncio.gather(*tasks, return_exceptions=True)

    assert isinstance(answers[0], asyncio.CancelledError)
    assert answers[1:] == ["A", "B", "A"]
    assert begun == ["a", "b"]
    assert await ask("a") == "A"
    assert begun == ["a", "b", "a"]


async def test_error_reaches_every_caller_and_is_not_kept() -> None:
    joined, results = JoinedCalls[int, int](), [ValueError("bad"), 7]

    async def call() -> int:
        await asyncio.sleep(0)
        result = results.pop(0)
        if isinstance(result, Exception):
            raise result
        return result

    both = [asyncio.create_task(joined.run(1, call, "call")) for _ in range(2)]
    answers = await asyncio.gather(*both, return_exceptions=True)

    assert [str(answer) for answer in answers] == ["bad", "bad"]
    assert await joined.run(1, call, "call") == 7
