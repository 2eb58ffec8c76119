"""The load generator: a closed loop of N clients over keep-alive connections, in a process of its own.

It shares the machine's cores with the server, so a request's bytes are built before the clock starts
and an answer is read, not parsed. The specification comes as JSON on standard input and the result
goes as JSON to standard output; `run_load` is both ends of that.
"""

import asyncio
import base64
import json
import subprocess
import sys
import time
from collections import Counter
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

IMAGE = "@IMAGE@"


@dataclass(frozen=True)
class Call:
    """One kind of request; `body` is JSON in which `@IMAGE@` becomes a JPEG's data URI."""

    name: str
    path: str
    body: str


@dataclass(frozen=True)
class LoadSpec:
    """`clients` send `warmup` requests off the clock, then `requests` on it, taking the calls in turn."""

    port: int
    calls: list[Call]
    images: list[str]
    clients: int
    warmup: int
    requests: int
    keep: int = 0
    timeout_s: float = 120.0


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


def run_load(spec: LoadSpec) -> LoadResult:
    """Run the load in a child process; raises RuntimeError when any request was not answered with 200."""
    command = [sys.executable, "-m", "bench.load"]
    timeout_s = 60 + spec.timeout_s * 10
    done = subprocess.run(
        command, input=json.dumps(asdict(spec)), capture_output=True, text=True, timeout=timeout_s
    )
    if done.returncode != 0:
        raise RuntimeError(f"the load generator failed:\n{done.stderr[-2000:]}")
    result = LoadResult(**json.loads(done.stdout))
    if set(result.statuses) != {"200"}:
        raise RuntimeError(f"not every request was answered: {result.statuses}; {result.failures}")
    return result


class Client:
    """One connection that is kept open from request to request."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.writer: asyncio.StreamWriter | None = None

    async def send(self, request: bytes) -> tuple[int, bytes]:
        """Send a whole request and read its whole answer: (status, body)."""
        if self.writer is None or self.writer.is_closing():
            self.reader, self.writer = await asyncio.open_connection("127.0.0.1", self.port, limit=2**24)
        self.writer.write(request)
        head = (await self.reader.readuntil(b"\r\n\r\n")).lower()
        if b"connection: close" in head:
            self.writer.close()
        return int(head.split(b" ", 2)[1]), await self._body(head)

    async def close(self) -> None:
        """Close the connection, if one is open."""
        if self.writer is not None:
            self.writer.close()
            with suppress(ConnectionError):
                await self.writer.wait_closed()

    async def _body(self, head: bytes) -> bytes:
        if b"transfer-encoding: chunked" in head:
            chunks = []
            while size := int(await self.reader.readuntil(b"\r\n"), 16):
                chunks.append((await self.reader.readexactly(size + 2))[:-2])
            await self.reader.readexactly(2)
            return b"".join(chunks)
        return await self.reader.readexactly(int(head.split(b"content-length:", 1)[1].split(b"\r\n", 1)[0]))


def build(call: Call, image: Path, port: int) -> bytes:
    """The request's bytes, head and body."""
    uri = "data:image/jpeg;base64," + base64.b64encode(image.read_bytes()).decode()
    body = call.body.replace(IMAGE, uri).encode()
    head = (
        f"POST {call.path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nAccept: */*\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


async def generate(spec: LoadSpec) -> LoadResult:
    """Drive the closed loop: a client sends its next request when its last one is answered."""
    total = spec.warmup + spec.requests
    images = [Path(spec.images[number % len(spec.images)]) for number in range(total)]
    requests = [
        build(spec.calls[number % len(spec.calls)], image, spec.port) for number, image in enumerate(images)
    ]
    latencies_ms: dict[str, list[float]] = {call.name: [] for call in spec.calls}
    statuses: Counter[str] = Counter()
    failures: list[str] = []
    answers: dict[str, str] = {}
    clients = [Client(spec.port) for _ in range(spec.clients)]

    async def loop(client: Client, numbers: Any, measured: bool) -> None:
        for number in numbers:
            start = time.perf_counter()
            try:
                status, body = await asyncio.wait_for(client.send(requests[number]), spec.timeout_s)
                outcome, text = str(status), body
            except (OSError, asyncio.IncompleteReadError, TimeoutError) as error:
                outcome, text = type(error).__name__, str(error).encode()
                client.writer = None
            elapsed_ms = (time.perf_counter() - start) * 1000
            if outcome != "200" and len(failures) < 3:
                failures.append(f"{outcome}: {text[:300].decode(errors='replace')}")
            if measured or outcome != "200":
                statuses[outcome] += 1
            if measured:
                call = spec.calls[number % len(spec.calls)]
                latencies_ms[call.name].append(elapsed_ms)
                if call is spec.calls[0] and len(answers) < spec.keep:
                    answers[images[number].name] = text.decode()

    # The iterator is shared: each client takes the next number, so nobody waits for a slow one.
    warmup = iter(range(spec.warmup))
    await asyncio.gather(*(loop(client, warmup, False) for client in clients))
    numbers = iter(range(spec.warmup, total))
    start, start_cpu = time.perf_counter(), time.process_time()
    await asyncio.gather(*(loop(client, numbers, True) for client in clients))
    seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - start_cpu
    for client in clients:
        await client.close()
    return LoadResult(seconds, cpu_seconds, latencies_ms, dict(statuses), failures, answers)


def main() -> None:
    """Read a specification, generate the load, write the result."""
    import uvloop

    fields = json.load(sys.stdin)
    spec = LoadSpec(**{**fields, "calls": [Call(**call) for call in fields["calls"]]})
    json.dump(asdict(uvloop.run(generate(spec))), sys.stdout)


if __name__ == "__main__":
    main()
