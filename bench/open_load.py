"""An open loop in a process of its own: requests come at random at a rate, whether or not earlier ones are answered.

The specification comes as JSON on standard input, the result goes as JSON to standard output. Times are on the
monotonic clock, which all processes of a machine share. Answers are kept as they are and read after the run.
"""

import asyncio
import json
import random
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bench.load import Call, Client, build

TEXT = "@TEXT@"
COLOURS = ("red", "blue", "green", "yellow", "white", "black", "grey", "orange")
THINGS = ("dog", "car", "house", "tree", "boat", "chair", "bird", "clock", "bridge", "shoe")
PLACES = ("on a table", "in the rain", "under a lamp", "by the sea", "at night", "behind glass")


@dataclass(frozen=True)
class OpenSpec:
    """`calls` in turn at `rate` a second for `seconds`; `@TEXT@` in a body becomes a text that changes."""

    port: int
    calls: list[Call]
    images: list[str]
    rate: float
    seconds: float
    connections: int = 64
    timeout_s: float = 60.0


@dataclass(frozen=True)
class Answer:
    """One request: when it was due, how long it took from then, and what came."""

    number: int
    at: float
    seconds: float
    status: str
    body: str


def text_of(number: int) -> str:
    """The text of a request: few are the same, as captions are."""
    parts = (COLOURS[number % 8], THINGS[number // 8 % 10], PLACES[number // 80 % 6])
    return f"{parts[0]} {parts[1]} {parts[2]}, picture {number // 480}"


def start(spec: OpenSpec) -> "subprocess.Popen[str]":
    """Start the load in a child process; `result` waits for its end."""
    process = subprocess.Popen(
        [sys.executable, "-m", "bench.open_load"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdin is not None
    process.stdin.write(json.dumps(asdict(spec)))
    process.stdin.close()
    return process


def result(process: "subprocess.Popen[str]") -> list[Answer]:
    """The answers, in the order that they were due. Raises RuntimeError where the load failed."""
    assert process.stdout is not None
    content = process.stdout.read()
    if process.wait() != 0:
        raise RuntimeError(f"the load ended with {process.returncode}")
    return [Answer(**answer) for answer in json.loads(content)]


async def generate(spec: OpenSpec) -> list[Answer]:
    """Send each request when it is due, on a connection that is free."""
    chance = random.Random(0)
    files = {image: Path(image) for image in spec.images}
    idle: asyncio.Queue[Client] = asyncio.Queue()
    for _ in range(spec.connections):
        idle.put_nowait(Client(spec.port))
    answers: list[Answer] = []
    sending: set[asyncio.Task[None]] = set()

    async def send(number: int, due: float) -> None:
        call = spec.calls[number % len(spec.calls)]
        request = build(
            Call(call.name, call.path, call.body.replace(TEXT, text_of(number))),
            files[spec.images[number % len(spec.images)]],
            spec.port,
        )
        client = await idle.get()
        try:
            async with asyncio.timeout(spec.timeout_s):
                status, body = await client.send(request)
            outcome, text = str(status), body.decode(errors="replace")
        except (OSError, asyncio.IncompleteReadError, TimeoutError) as error:
            outcome, text, client.writer = type(error).__name__, str(error), None
        finally:
            idle.put_nowait(client)
        answers.append(Answer(number, due, time.monotonic() - due, outcome, text))

    due, number = time.monotonic(), 0
    end = due + spec.seconds
    while due < end:
        await asyncio.sleep(max(0.0, due - time.monotonic()))
        task = asyncio.create_task(send(number, due))
        sending.add(task)
        task.add_done_callback(sending.discard)
        due += chance.expovariate(spec.rate)
        number += 1
    await asyncio.gather(*sending)
    return sorted(answers, key=lambda answer: answer.number)


def main() -> None:
    """Read a specification, generate the load, write the answers."""
    import uvloop

    fields: dict[str, Any] = json.load(sys.stdin)
    spec = OpenSpec(**{**fields, "calls": [Call(**call) for call in fields["calls"]]})
    json.dump([asdict(answer) for answer in uvloop.run(generate(spec))], sys.stdout)


if __name__ == "__main__":
    main()
