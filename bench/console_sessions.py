"""Scripted sessions of the console: each does what an open page does, in one process for all of them.

A page asks for what it shows when it is opened. Then the lists of jobs and of versions follow the stream of changes,
the page of a job follows the job's own stream, and the page of the service asks again and again (console/src/pages/).
"""

import asyncio
import os
import random
import time
from collections import Counter
from dataclasses import dataclass

import aiohttp

from bench import child
from bench.flood import NICE
from bench.load import open_session, run_in_loop


@dataclass(frozen=True)
class Page:
    """What a page asks for when it is opened, the stream it follows, and what it asks for again, by seconds."""

    opened: tuple[str, ...]
    stream: str = ""
    polled: tuple[tuple[float, tuple[str, ...]], ...] = ()


@dataclass(frozen=True)
class SessionsSpec:
    """`sessions` open pages for `seconds`. They look at the list of jobs, the job, the versions and the service."""

    port: int
    job: str
    sessions: int
    seconds: float


def run_sessions(spec: SessionsSpec) -> dict[str, int]:
    """Run the sessions in a child process. Returns the numbers of answers by status, and of events."""
    return child.call(run_in_loop, sessions, spec)


def pages(job: str) -> list[Page]:
    return [
        Page(("/jobs?limit=50", "/datasets?limit=100"), "/events"),
        Page((f"/jobs/{job}", f"/jobs/{job}/curves?points=1200"), f"/jobs/{job}/events"),
        Page(
            ("/models?limit=100", "/models/status"),
            "/events",
            ((30, ("/models?limit=100", "/models/status")),),
        ),
        Page((), "", ((2, ("/metrics",)), (10, ("/ready", "/models/status", "/workers")))),
    ]


async def sessions(spec: SessionsSpec) -> dict[str, int]:
    # They share the cores with the service, which browsers elsewhere do not.
    os.nice(NICE)
    answers = Counter[str]()
    kinds, chance = pages(spec.job), random.Random(0)
    end = time.monotonic() + spec.seconds

    async def ask(session: aiohttp.ClientSession, path: str) -> None:
        async with session.get(path) as response:
            await response.read()
        answers[str(response.status)] += 1

    async def poll(session: aiohttp.ClientSession, every_s: float, paths: tuple[str, ...]) -> None:
        while True:
            for path in paths:
                await ask(session, path)
            await asyncio.sleep(every_s)

    async def follow(session: aiohttp.ClientSession, path: str) -> None:
        async with session.get(path, headers={"Accept": "text/event-stream"}) as response:
            if response.status != 200:
                raise RuntimeError(f"{path} answered {response.status}: {await response.text()}")
            async for line in response.content:
                answers["events"] += line.startswith(b"event:")

    async def browse(session: aiohttp.ClientSession, page: Page) -> None:
        await asyncio.sleep(chance.uniform(0, 2))
        for path in page.opened:
            await ask(session, path)
        async with asyncio.TaskGroup() as tasks:
            for every_s, paths in page.polled:
                tasks.create_task(poll(session, every_s, paths))
            if page.stream:
                tasks.create_task(follow(session, page.stream))

    async with open_session(spec.port, 4 * spec.sessions) as session:
        tasks = [
            asyncio.create_task(browse(session, kinds[number % len(kinds)]))
            for number in range(spec.sessions)
        ]
        ended, going = await asyncio.wait(
            tasks, timeout=end - time.monotonic(), return_when=asyncio.FIRST_EXCEPTION
        )
        for task in going:
            task.cancel()
        await asyncio.gather(*going, return_exceptions=True)
        for task in ended:
            task.result()
    return dict(answers)
