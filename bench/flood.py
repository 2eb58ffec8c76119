"""Clients of one key that ask as fast as they are answered, whatever the answer, in a process of their own.

They share the cores with the service, which clients elsewhere do not. So their process has a low priority, and their
bodies are made before the clock starts.
"""

import asyncio
import io
import itertools
import json
import os
import re
import tarfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass

import aiohttp

from bench import child
from bench.load import data_uri, open_session, run_in_loop

KINDS = ("requests", "texts", "uploads", "jobs", "streams")
TEXTS = 1024
BODY_BYTES = 8 * 2**20
SLOW_BYTES = 64  # of a slow body, ten times a second
NICE = 10  # as a training run has beside the service
_FORM = (
    b'--edge\r\nContent-Disposition: form-data; name="file"; filename="set.tar"\r\n'
    b"Content-Type: application/octet-stream\r\n\r\n%b\r\n--edge--\r\n"
)
_LIMIT = re.compile(r"its limit (\w+)")


@dataclass(frozen=True)
class FloodSpec:
    """`clients` of the key `key` flood the service with requests of one kind for `seconds`.

    `dataset` and `job` are the key's own.
    """

    port: int
    key: str
    kind: str
    image: str
    dataset: str
    job: str
    clients: int
    seconds: float


def run_flood(spec: FloodSpec) -> dict[str, int]:
    """Run the clients in a child process. Returns the number of answers by status or limit."""
    return child.call(run_in_loop, flood, spec)


async def flood(spec: FloodSpec) -> dict[str, int]:
    os.nice(NICE)
    answers = Counter[str]()
    ask = _asking(spec)
    end = time.monotonic() + spec.seconds

    async def client(number: int, session: aiohttp.ClientSession) -> None:
        while time.monotonic() < end:
            try:
                answers[await ask(session, number)] += 1
            except (aiohttp.ClientError, OSError) as error:
                answers[type(error).__name__] += 1
                await asyncio.sleep(0.1)

    async with open_session(spec.port, spec.clients, key=spec.key) as session:
        clients = [asyncio.create_task(client(number, session)) for number in range(spec.clients)]
        await asyncio.wait(clients, timeout=spec.seconds)
        for task in clients:
            task.cancel()
        ended = await asyncio.gather(*clients, return_exceptions=True)
    answers["without answer at the end"] = sum(isinstance(each, asyncio.CancelledError) for each in ended)
    return dict(+answers)


def outcome(status: int, body: bytes) -> str:
    """The status, with the limit that refused the request or the error's code."""
    if status < 400:
        return str(status)
    text = body.decode(errors="replace")
    if (limit := _LIMIT.search(text)) is not None:
        return f"{status} {limit[1]}"
    try:
        return f"{status} {json.loads(text)['error']['code']}"
    except (ValueError, KeyError, TypeError):
        return str(status)


Ask = Callable[[aiohttp.ClientSession, int], Awaitable[str]]


def _asking(spec: FloodSpec) -> Ask:
    """How a client asks. Its number chooses among kinds of uploads."""
    image, numbers = data_uri(spec.image), itertools.count()

    async def post(session: aiohttp.ClientSession, path: str, body: object, **headers: str) -> str:
        async with session.post(path, data=body, headers=headers) as response:
            return outcome(response.status, await response.read())

    if spec.kind == "requests":
        match = json.dumps({"images": [image], "texts": ["a dog", "a car"]}).encode()
        return lambda session, _: post(session, "/match", match)
    if spec.kind == "texts":
        texts = json.dumps({"images": [image], "texts": [f"scene {n} of @" for n in range(TEXTS)]}).encode()
        return lambda session, _: post(session, "/match", texts.replace(b"@", b"%d" % next(numbers)))
    if spec.kind == "uploads":
        form, garbage = _FORM % _archive(), b"x" * BODY_BYTES
        multipart = {"Content-Type": "multipart/form-data; boundary=edge"}
        asks: list[Ask] = [
            lambda session, _: post(session, "/datasets", form, **multipart),
            lambda session, _: post(session, "/match", garbage),
            lambda session, _: post(session, "/match", _slowly(spec.seconds)),
        ]
        return lambda session, number: asks[number % len(asks)](session, number)
    if spec.kind == "jobs":
        evaluate = {"model": "default", "benchmark": "winoground", "data": spec.dataset}
        body = json.dumps(evaluate).encode()

        async def submit_and_cancel(session: aiohttp.ClientSession, _: int) -> str:
            async with session.post("/evaluate", data=body) as response:
                answer = await response.read()
            if response.status == 202:
                await post(session, f"/jobs/{json.loads(answer)['id']}/cancel", b"")
            return outcome(response.status, answer)

        return submit_and_cancel

    async def follow(session: aiohttp.ClientSession, _: int) -> str:
        headers = {"Accept": "text/event-stream"}
        async with session.get(f"/jobs/{spec.job}/events", headers=headers) as response:
            return outcome(response.status, await response.read())

    return follow


def _archive() -> bytes:
    """A tar of one large file. The form lacks other fields, so it is refused once it has arrived."""
    written = io.BytesIO()
    with tarfile.open(fileobj=written, mode="w") as tar:
        entry = tarfile.TarInfo("one")
        entry.size = BODY_BYTES
        tar.addfile(entry, io.BytesIO(bytes(BODY_BYTES)))
    return written.getvalue()


async def _slowly(seconds: float) -> AsyncIterator[bytes]:
    for _ in range(round(10 * seconds)):
        yield b"x" * SLOW_BYTES
        await asyncio.sleep(0.1)
