import asyncio
import json
from contextlib import suppress
from pathlib import Path

from bench.load import Call, LoadResult, LoadSpec, closed_loop

CALLS = [Call("embed", "/embed", '{"image": "@IMAGE@"}'), Call("match", "/match", "{}")]


class Recorder:
    """A keep-alive HTTP server that answers each request with its path, chunked or not, and a status."""

    def __init__(self, status: int = 200, *, chunked: bool = False) -> None:
        self.status, self.chunked = status, chunked
        self.paths: list[str] = []
        self.bodies: list[str] = []
        self.connections = self.in_flight = self.most_in_flight = 0

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        with suppress(asyncio.IncompleteReadError):
            await self.answer(reader, writer)
        writer.close()

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while head := await reader.readuntil(b"\r\n\r\n"):
            self.in_flight += 1
            self.most_in_flight = max(self.most_in_flight, self.in_flight)
            length = int(head.split(b"Content-Length: ")[1].split(b"\r\n")[0])
            self.bodies.append((await reader.readexactly(length)).decode())
            path = head.split(b" ")[1]
            self.paths.append(path.decode())
            await asyncio.sleep(0.005)  # so that the calls of several clients overlap
            size = f"{len(path):x}".encode()
            body = size + b"\r\n" + path + b"\r\n0\r\n\r\n" if self.chunked else path
            framing = b"Transfer-Encoding: chunked" if self.chunked else b"Content-Length: %d" % len(path)
            self.in_flight -= 1
            writer.write(b"HTTP/1.1 %d OK\r\n%b\r\n\r\n%b" % (self.status, framing, body))


def drive(recorder: Recorder, image: Path, **options: int) -> LoadResult:
    async def run() -> LoadResult:
        server = await asyncio.start_server(recorder.handle, "127.0.0.1", 0, limit=2**20)
        async with server:
            port = server.sockets[0].getsockname()[1]
            result = await closed_loop(LoadSpec(port, CALLS, [str(image)], **options))
            # The handlers see the clients hang up.
            await asyncio.gather(*asyncio.all_tasks() - {asyncio.current_task()})
        return result

    return asyncio.run(run())


def test_load_is_a_closed_loop_over_kept_connections_taking_calls_in_turn(tmp_path: Path) -> None:
    image = tmp_path / "one.jpg"
    image.write_bytes(b"jpeg")
    recorder = Recorder()

    result = drive(recorder, image, clients=3, warmup=4, requests=20, keep=5)

    assert recorder.connections == recorder.most_in_flight == 3
    assert sorted(recorder.paths) == ["/embed"] * 12 + ["/match"] * 12
    assert json.loads(recorder.bodies[0]) == {"image": "data:image/jpeg;base64,anBlZw=="}
    assert {name: len(latencies) for name, latencies in result.latencies_ms.items()} == {
        "embed": 10,
        "match": 10,
    }
    assert result.statuses == {"200": 20}
    assert result.answers == {"one.jpg": "/embed"}


def test_refused_requests_are_counted_and_shown(tmp_path: Path) -> None:
    image = tmp_path / "one.jpg"
    image.write_bytes(b"jpeg")

    result = drive(Recorder(503, chunked=True), image, clients=2, warmup=0, requests=4)

    assert result.statuses == {"503": 4}
    assert len(result.failures) == 3  # the first ones; those of two clients in any order
    assert {*result.failures} == {"503: /embed", "503: /match"}
