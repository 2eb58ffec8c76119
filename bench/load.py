"""The load generator: a closed loop of N clients, or an open loop at a rate, in its own process.

It shares the machine's cores with the server, so it must be cheap: request bodies are built before the clock
starts, responses are read but not parsed, and aiohttp takes 0.11 ms of a core per request (httpx 2.7 ms). Times
of the open loop are on the monotonic clock, which all processes of a machine share.
"""

import asyncio
import base64
import random
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import aiohttp

from bench import child

R = TypeVar("R")
S = TypeVar("S")

IMAGE, TEXT = "@IMAGE@", "@TEXT@"
COLOURS = ("red", "blue", "green", "yellow", "white", "black", "grey", "orange")
THINGS = ("dog", "car", "house", "tree", "boat", "chair", "bird", "clock", "bridge", "shoe")
PLACES = ("on a table", "in the rain", "under a lamp", "by the sea", "at night", "behind glass")


@dataclass(frozen=True)
class Call:
    """One kind of request; in `body`, `@IMAGE@` becomes a JPEG's data URI and `@TEXT@` a text."""

    name: str
    path: str
    body: str

    def filled(self, image: str, text: str = "") -> bytes:
        return self.body.replace(TEXT, text).replace(IMAGE, data_uri(image)).encode()


@dataclass(frozen=True)
class LoadSpec:
    """`clients` send `warmup` untimed requests, then `requests` timed ones, cycling through the calls."""

    port: int
    calls: list[Call]
    images: list[str]
    clients: int
    warmup: int
    requests: int
    keep: int = 0
    timeout_s: float = 120.0
    key: str = ""


@dataclass(frozen=True)
class LoadResult:
    """Wall time, latencies by call, statuses, the first failures, and kept answers by image."""

    seconds: float
    cpu_seconds: float
    latencies_ms: dict[str, list[float]]
    statuses: dict[str, int]
    failures: list[str]
    answers: dict[str, str]

    @property
    def requests_per_second(self) -> float:
        """Answered requests over the wall time from the first byte sent to the last answer read."""
        return sum(map(len, self.latencies_ms.values())) / self.seconds


@dataclass(frozen=True)
class OpenSpec:
    """`calls` in turn at random times, `rate` a second for `seconds`, without waiting for earlier answers."""

    port: int
    calls: list[Call]
    images: list[str]
    rate: float
    seconds: float
    connections: int = 64
    timeout_s: float = 60.0
    key: str = ""


@dataclass(frozen=True)
class Answer:
    """A request of the open loop: when it was due, how long it took from then, and the answer."""

    number: int
    at: float
    seconds: float
    status: str
    body: str


def data_uri(image: str) -> str:
    return "data:image/jpeg;base64," + base64.b64encode(Path(image).read_bytes()).decode()


def text_of(number: int) -> str:
    """The text of a request in the open loop; like captions, texts rarely repeat."""
    parts = (COLOURS[number % 8], THINGS[number // 8 % 10], PLACES[number // 80 % 6])
    return f"{parts[0]} {parts[1]} {parts[2]}, picture {number // 480}"


def run_load(spec: LoadSpec) -> LoadResult:
    """Run the closed loop in a child process. Raises RuntimeError if a request was not answered with 200."""
    result = child.call(run_in_loop, closed_loop, spec)
    if set(result.statuses) != {"200"}:
        raise RuntimeError(f"not every request was answered: {result.statuses}; {result.failures}")
    return result


def run_open_load(spec: OpenSpec) -> list[Answer]:
    """Run the open loop in a child process; the answers come in the order of their requests."""
    return child.call(run_in_loop, open_loop, spec)


def run_in_loop(loop: Callable[[S], Coroutine[Any, Any, R]], spec: S) -> R:
    import uvloop

    return uvloop.run(loop(spec))


async def closed_loop(spec: LoadSpec) -> LoadResult:
    """Each client sends its next request when its last one is answered."""
    total = spec.warmup + spec.requests
    calls = [spec.calls[number % len(spec.calls)] for number in range(total)]
    images = [spec.images[number % len(spec.images)] for number in range(total)]
    bodies = [call.filled(image) for call, image in zip(calls, images, strict=True)]
    latencies_ms: dict[str, list[float]] = {call.name: [] for call in spec.calls}
    statuses: Counter[str] = Counter()
    failures: list[str] = []
    answers: dict[str, str] = {}

    async def client(numbers: Iterator[int], *, measured: bool) -> None:
        for number in numbers:
            call = calls[number]
            start = time.perf_counter()
            status, answer = await _send(session, call.path, bodies[number])
            elapsed_ms = (time.perf_counter() - start) * 1000
            if status != "200" and len(failures) < 3:
                failures.append(f"{status}: {answer[:300].decode(errors='replace')}")
            if measured or status != "200":
                statuses[status] += 1
            if measured:
                latencies_ms[call.name].append(elapsed_ms)
                if call is spec.calls[0] and len(answers) < spec.keep:
                    answers[Path(images[number]).name] = answer.decode()

    async with open_session(spec.port, spec.clients, spec.timeout_s, spec.key) as session:
        # The iterator is shared, so no request waits for a slow client.
        warmup = iter(range(spec.warmup))
        await asyncio.gather(*(client(warmup, measured=False) for _ in range(spec.clients)))
        numbers = iter(range(spec.warmup, total))
        start, start_cpu = time.perf_counter(), time.process_time()
        await asyncio.gather(*(client(numbers, measured=True) for _ in range(spec.clients)))
        seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - start_cpu
    return LoadResult(seconds, cpu_seconds, latencies_ms, dict(statuses), failures, answers)


async def open_loop(spec: OpenSpec) -> list[Answer]:
    """Send each request when it is due, or as soon afterwards as a connection is free."""
    chance = random.Random(0)
    answers: list[Answer] = []

    async def send(number: int, due: float) -> None:
        call, image = spec.calls[number % len(spec.calls)], spec.images[number % len(spec.images)]
        status, body = await _send(session, call.path, call.filled(image, text_of(number)))
        answers.append(Answer(number, due, time.monotonic() - due, status, body.decode(errors="replace")))

    async with (
        open_session(spec.port, spec.connections, spec.timeout_s, spec.key) as session,
        asyncio.TaskGroup() as requests,
    ):
        due, number = time.monotonic(), 0
        end = due + spec.seconds
        while due < end:
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            requests.create_task(send(number, due))
            due += chance.expovariate(spec.rate)
            number += 1
    return sorted(answers, key=lambda answer: answer.number)


def open_session(
    port: int, connections: int, timeout_s: float = 60.0, key: str = ""
) -> aiohttp.ClientSession:
    """A session that sends JSON, unless a request says otherwise. `key` is an API key, or "" for none."""
    return aiohttp.ClientSession(
        f"http://127.0.0.1:{port}",
        connector=aiohttp.TCPConnector(limit=connections),
        timeout=aiohttp.ClientTimeout(sock_connect=timeout_s, sock_read=timeout_s),
        headers={"Content-Type": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {}),
    )


async def _send(session: aiohttp.ClientSession, path: str, body: bytes) -> tuple[str, bytes]:
    """The status and body, or the error's name and message."""
    try:
        async with session.post(path, data=body) as response:
            return str(response.status), await response.read()
    except (aiohttp.ClientError, OSError) as error:
        return type(error).__name__, str(error).encode()
