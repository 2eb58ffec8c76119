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
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

import aiohttp

from bench import child
from bench.load import data_uri, open_session, run_in_loop

TEXTS = 1024
LABELS = 4096
BODY_BYTES = 8 * 2**20
SLOW_BYTES = 64  # of a slow body, ten times a second
PATIENCE_S = 0.2
NICE = 10  # as a training run has beside the service
_FORM = (
    b'--edge\r\nContent-Disposition: form-data; name="file"; filename="set.tar"\r\n'
    b"Content-Type: application/octet-stream\r\n\r\n%b\r\n--edge--\r\n"
)
_LIMIT = re.compile(r"its limit (\w+)")


@dataclass(frozen=True)
class FloodSpec:
    """`clients` of the key `key` flood the service with requests of one kind for `seconds`.

    `dataset` and `job` are the key's own. `large_image` has the pixels of a phone's camera.
    """

    port: int
    key: str
    kind: str
    image: str
    large_image: str
    versions: Sequence[str]
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
    ask = KINDS[spec.kind](spec)
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


async def _ask(
    session: aiohttp.ClientSession, method: str, path: str, body: object = None, **headers: str
) -> str:
    async with session.request(method, path, data=body, headers=headers) as response:
        return outcome(response.status, await response.read())


def _sent(method: str, path: str, body: bytes | None = None, **headers: str) -> Ask:
    return lambda session, _: _ask(session, method, path, body, **headers)


def _same(path: str, body: Mapping[str, object]) -> Ask:
    """The same body each time."""
    return _sent("POST", path, json.dumps(body).encode())


def _new(path: str, body: Mapping[str, object]) -> Ask:
    """The body with a new number in place of each @."""
    sent, numbers = json.dumps(body).encode(), itertools.count()
    return lambda session, _: _ask(session, "POST", path, sent.replace(b"@", b"%d" % next(numbers)))


def _in_turn(asks: Sequence[Ask]) -> Ask:
    """Each client asks in one way."""
    return lambda session, number: asks[number % len(asks)](session, number)


def _requests(spec: FloodSpec) -> Ask:
    return _same("/match", {"images": [data_uri(spec.image)], "texts": ["a dog", "a car"]})


def _texts(spec: FloodSpec) -> Ask:
    texts = [f"scene {number} of @" for number in range(TEXTS)]
    return _new("/match", {"images": [data_uri(spec.image)], "texts": texts})


def _long_texts(spec: FloodSpec) -> Ask:
    return _new("/embed", {"texts": ["@ " + "a dog and a car " * 250] * 8})


def _images(spec: FloodSpec) -> Ask:
    return _same("/match", {"images": [data_uri(spec.large_image)] * 4, "texts": ["a dog", "a car"]})


def _labels(spec: FloodSpec) -> Ask:
    labels = [f"thing {number} of @" for number in range(LABELS)]
    return _new("/classify", {"images": [data_uri(spec.image)], "labels": labels, "templates": ["a {}"]})


def _bodies(_: FloodSpec) -> Ask:
    """JSON that takes a parser long, of some megabytes each."""
    bodies = [
        b"{" + b",".join(b'"k%d":1' % number for number in range(500_000)) + b"}",
        b'{"images":["a"],"texts":["' + b"\\n" * BODY_BYTES + b'"]}',
        b'{"images":["a"],"texts":[' + b"1" * BODY_BYTES + b"]}",
        b'{"images":["a"],"texts":[' + b'"",' * 1_000_000 + b'""]}',
        b"[" * BODY_BYTES,
        json.dumps({"images": ["a"], "texts": ["\u00e9" * 4000] * 900}).encode(),
    ]
    return _in_turn([_sent("POST", "/match", body) for body in bodies])


def _uploads(spec: FloodSpec) -> Ask:
    form, garbage = _FORM % _archive(), b"x" * BODY_BYTES
    multipart = {"Content-Type": "multipart/form-data; boundary=edge"}
    return _in_turn(
        [
            _sent("POST", "/datasets", form, **multipart),
            _sent("POST", "/match", garbage),
            lambda session, _: _ask(session, "POST", "/match", _slowly(spec.seconds)),
        ]
    )


def _jobs(spec: FloodSpec) -> Ask:
    body = json.dumps(_evaluation(spec)).encode()

    async def submit_and_cancel(session: aiohttp.ClientSession, _: int) -> str:
        async with session.post("/evaluate", data=body) as response:
            answer = await response.read()
        if response.status == 202:
            await _ask(session, "POST", f"/jobs/{json.loads(answer)['id']}/cancel")
        return outcome(response.status, answer)

    return submit_and_cancel


def _dry_runs(spec: FloodSpec) -> Ask:
    return _same("/evaluate", {**_evaluation(spec), "dry_run": True})


def _comparisons(spec: FloodSpec) -> Ask:
    texts = ["a dog @", "a car @"]
    body = {"images": [data_uri(spec.image)], "texts": texts, "models": list(spec.versions)}
    return _new("/match/compare", body)


def _given_up(spec: FloodSpec) -> Ask:
    """Costly requests whose clients leave before the answer."""
    asks = _in_turn([_texts(spec), _comparisons(spec), _dry_runs(spec)])

    async def leave(session: aiohttp.ClientSession, number: int) -> str:
        try:
            async with asyncio.timeout(PATIENCE_S):
                return await asks(session, number)
        except TimeoutError:
            return "given up"

    return leave


def _streams(spec: FloodSpec) -> Ask:
    return _sent("GET", f"/jobs/{spec.job}/events", Accept="text/event-stream")


def _lists(_: FloodSpec) -> Ask:
    paths = ("/jobs?limit=100", "/models", "/datasets?limit=100", "/promotions?limit=100")
    return _in_turn([_sent("GET", path) for path in paths])


def _wrong_keys(_: FloodSpec) -> Ask:
    return _sent("POST", "/match", b"{}", Authorization="Bearer sdsclip_wrong")


def _without_key(_: FloodSpec) -> Ask:
    paths = ("/metrics", "/openapi.json", "/health", "/docs")
    return _in_turn([_sent("GET", path, Authorization="") for path in paths])


def _evaluation(spec: FloodSpec) -> dict[str, object]:
    return {"model": "default", "benchmark": "winoground", "data": spec.dataset}


KINDS: Mapping[str, Callable[[FloodSpec], Ask]] = {
    "requests": _requests,
    "texts": _texts,
    "long texts": _long_texts,
    "large images": _images,
    "labels": _labels,
    "bodies": _bodies,
    "wrong keys": _wrong_keys,
    "uploads": _uploads,
    "jobs": _jobs,
    "dry runs": _dry_runs,
    "streams": _streams,
    "lists": _lists,
    "comparisons": _comparisons,
    "requests given up": _given_up,
    "routes without a key": _without_key,
}
"""How a client of each kind of flood asks. Its number chooses among several ways."""


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
