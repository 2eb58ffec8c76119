"""Fetching against real local servers, with the name server and the rule about addresses given by the test."""

import asyncio
import contextlib
import ipaddress
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager

import pytest

from sds_clip.app.addresses import Address, is_public
from sds_clip.app.errors import InvalidImage
from sds_clip.app.fetch import Fetcher

Handler = Callable[[bytes, asyncio.StreamWriter], Awaitable[None]]
LOOPBACK = ipaddress.ip_address("127.0.0.1")


MALFORMED_HOSTS = (
    "xn--",
    "xn--.test",
    "a.xn--",
    "xn--a",
    "xn--999999999",
    "xn--\u0101",
    "\u200d.test",
    "a\u0300\u0300.xn--0",
    "%00",
    "a%00b",
    "%ff",
    "..",
    ".test",
    "a..test",
    "-",
    "a" * 64 + ".test",
    "\u0661" * 70,
    "[::1%25eth0]",
    "[v1.a]",
    "[]",
)


def _answer(body: bytes, *headers: str, status: str = "200 OK") -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", "Connection: close", *headers]
    return "\r\n".join([*lines, "", ""]).encode() + body


def _always(answer: bytes) -> Handler:
    async def handle(_: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(answer)

    return handle


@asynccontextmanager
async def _server(
    handler: Handler, host: str = "127.0.0.1", port: int = 0
) -> AsyncIterator[tuple[int, list[bytes]]]:
    """A server that keeps the requests that it got."""
    requests: list[bytes] = []
    serving: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        serving.add(asyncio.current_task())
        # The client may hang up at any time, and the test may end first.
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            request = await reader.readuntil(b"\r\n\r\n")
            requests.append(request)
            await handler(request, writer)
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, host, port)
    async with server:
        yield server.sockets[0].getsockname()[1], requests
        for task in serving:
            task.cancel()
        await asyncio.gather(*serving)


class Names:
    """A name server: answers in order, the last one for ever."""

    def __init__(self, **answers: Sequence[Sequence[str]]) -> None:
        self._answers = {name.replace("_", "."): list(listed) for name, listed in answers.items()}
        self.asked: list[str] = []

    async def __call__(self, host: str, port: int) -> list[Address]:
        self.asked.append(host)
        if host not in self._answers:
            raise OSError("no such name")
        listed = self._answers[host]
        return [ipaddress.ip_address(text) for text in (listed.pop(0) if len(listed) > 1 else listed[0])]


def _fetcher(
    port: int,
    names: Names | None = None,
    allowed: Callable[[Address], bool] = lambda address: address == LOOPBACK,
    **changes: float,
) -> Fetcher:
    limits = {"max_bytes": 1000, "timeout_s": 5.0, "max_redirects": 2, **changes}
    names = names or Names(image_test=[["127.0.0.1"]])
    return Fetcher(is_allowed=allowed, resolve=names, allowed_ports=[port], **limits)


async def _code_of(handler: Handler, **limits: float) -> str:
    """The code of the error for what a server answers."""
    async with _server(handler) as (port, _):
        return await _code(_fetcher(port, **limits), f"http://image.test:{port}/")  # type: ignore[arg-type]


async def _code(fetcher: Fetcher, url: str) -> str:
    with pytest.raises(InvalidImage) as caught:
        await fetcher.fetch(url)
    return caught.value.code


async def test_image_is_fetched_under_its_name_and_without_luggage() -> None:
    async with _server(_always(_answer(b"picture", "Set-Cookie: a=b"))) as (port, requests):
        fetcher = _fetcher(port)
        assert await fetcher.fetch(f"http://image.test:{port}/a%20b?c=d#e") == b"picture"
        assert await fetcher.fetch(f"http://image.test:{port}") == b"picture"
    first, second = requests
    assert first.startswith(b"GET /a%20b?c=d HTTP/1.1\r\n")
    assert f"Host: image.test:{port}".encode() in first
    assert b"Accept-Encoding: identity" in first
    assert second.startswith(b"GET / HTTP/1.1\r\n")
    assert b"cookie" not in second.lower()


async def test_proxies_of_the_environment_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")

    async with _server(_always(_answer(b"picture"))) as (port, _):
        assert await _fetcher(port).fetch(f"http://image.test:{port}/") == b"picture"


@pytest.mark.parametrize(
    "url",
    [
        "ftp://image.test/a.png",
        "file:///etc/passwd",
        "gopher://image.test/",
        "data:image/png;base64,aGk=",
        "//image.test/a.png",
        "image.test/a.png",
        "http:///a.png",
        "http://",
        "",
        "http://user@image.test/",
        "http://user:password@image.test/",
        "http://image.test:22/",
        "http://image.test:8080/",
        "https://image.test:443443/",
        "http://image.test:x/",
        "http://[::1/",
        "http://image.test\\@127.0.0.1/",
        "http://ima\nge.test/",
        "http://\ud800/",
        "http://" + "a" * 300 + ".test/",
        *(f"http://{host}/" for host in MALFORMED_HOSTS),
        "x" * 100_000,
    ],
    ids=lambda url: ascii(url)[:30],
)
async def test_url_that_is_not_a_plain_web_address_is_forbidden_without_asking_the_name_server(
    url: str,
) -> None:
    names = Names(image_test=[["127.0.0.1"]])
    fetcher = Fetcher(max_bytes=1000, timeout_s=5, max_redirects=1, is_allowed=lambda _: True, resolve=names)
    assert await _code(fetcher, url) == "image_url_forbidden"
    assert "image.test" not in names.asked


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "localhost",
        "2130706433",
        "0x7f000001",
        "0x7f.1",
        "0177.0.0.1",
        "127.1",
        "0",
        "0.0.0.0",
        "[::1]",
        "[::]",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "[0:0:0:0:0:ffff:7f00:1]",
        "[fe80::1]",
        "[64:ff9b::7f00:1]",
        "169.254.169.254",
        "10.0.0.1",
        "192.168.0.1",
        "\u2460\u2461\u2466.0.0.1",
        "127.0.0.1.",
    ],
    ids=ascii,
)
async def test_inner_host_in_any_form_is_forbidden_and_never_called(host: str) -> None:
    """Through the system's own resolver, and with a server listening at the address."""

    async with _server(_always(_answer(b"secret"))) as (port, requests):
        fetcher = Fetcher(max_bytes=1000, timeout_s=5, max_redirects=1, allowed_ports=[port])
        assert await _code(fetcher, f"http://{host}:{port}/") == "image_url_forbidden"
        await fetcher.close()
    assert requests == []


async def test_unknown_host_and_inner_host_look_the_same() -> None:
    answers = set()
    for host in ("nowhere.test", "inner.test", "empty.test"):
        names = Names(inner_test=[["10.0.0.1"]], empty_test=[[]])
        with pytest.raises(InvalidImage) as caught:
            await _fetcher(80, names, is_public).fetch(f"http://{host}/")
        answers.add((caught.value.code, caught.value.message))
    assert len(answers) == 1


async def test_host_with_one_inner_address_among_public_ones_is_forbidden() -> None:
    async with _server(_always(_answer(b"picture"))) as (port, requests):
        names = Names(image_test=[["127.0.0.1", "10.0.0.1"]])
        assert await _code(_fetcher(port, names), f"http://image.test:{port}/") == "image_url_forbidden"
    assert requests == []


async def test_name_server_that_changes_its_answer_cannot_move_the_connection() -> None:
    """DNS rebinding: the first answer is allowed, every later one is the inner address."""

    names = Names(image_test=[["127.0.0.1"], ["127.0.0.2"]])
    async with (
        _server(_always(_answer(b"outer"))) as (port, outer),
        _server(_always(_answer(b"inner")), "127.0.0.2", port) as (_, inner),
    ):
        fetcher = _fetcher(port, names)
        assert await fetcher.fetch(f"http://image.test:{port}/") == b"outer"
        assert await _code(fetcher, f"http://image.test:{port}/") == "image_url_forbidden"
    assert names.asked == ["image.test"] * 2
    assert (len(outer), len(inner)) == (1, 0)


@pytest.mark.parametrize("status", ["301 Moved", "302 Found", "303 See", "307 Temporary", "308 Permanent"])
async def test_redirect_is_followed(status: str) -> None:
    async def handle(request: bytes, writer: asyncio.StreamWriter) -> None:
        moved = _answer(b"", "Location: ../there?x=1", status=status)
        writer.write(moved if b"GET /a/here" in request else _answer(b"picture"))

    async with _server(handle) as (port, requests):
        assert await _fetcher(port).fetch(f"http://image.test:{port}/a/here") == b"picture"
    assert requests[1].startswith(b"GET /there?x=1 ")


@pytest.mark.parametrize(
    "location",
    [
        "http://127.0.0.2:{port}/",
        "http://inner.test:{port}/",
        "//inner.test:{port}/",
        "http://inner.test:22/",
        "file:///etc/passwd",
        "http://user@image.test:{port}/",
        "ftp://image.test/",
        "http://[::1]:{port}/",
        "http://xn--:{port}/",
    ],
)
async def test_redirect_to_an_inner_place_is_forbidden_and_never_called(location: str) -> None:
    async def handle(_: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(_answer(b"", f"Location: {location.format(port=port)}", status="302 Found"))

    async with (
        _server(handle) as (port, _),
        _server(_always(_answer(b"inner")), "127.0.0.2", port) as (_, inner),
    ):
        names = Names(
            image_test=[["127.0.0.1"]], inner_test=[["127.0.0.2"]], **{"127_0_0_2": [["127.0.0.2"]]}
        )
        assert await _code(_fetcher(port, names), f"http://image.test:{port}/") == "image_url_forbidden"
    assert inner == []


async def test_redirects_without_end_are_given_up() -> None:
    async with _server(_always(_answer(b"", "Location: /", status="302 Found"))) as (port, requests):
        assert await _code(_fetcher(port), f"http://image.test:{port}/") == "image_url_failed"
    assert len(requests) == 3


async def test_slow_drip_ends_at_the_total_time() -> None:
    async def drip(_: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            writer.write(b"x")
            await writer.drain()
            await asyncio.sleep(0.02)  # the slow server itself

    assert await _code_of(drip, timeout_s=0.3) == "image_url_timeout"


async def test_silent_name_server_ends_at_the_total_time() -> None:
    async def silent(host: str, port: int) -> list[Address]:
        await asyncio.Event().wait()
        return []

    fetcher = Fetcher(max_bytes=10, timeout_s=0.1, max_redirects=0, resolve=silent)
    assert await _code(fetcher, "http://image.test/") == "image_url_timeout"


async def test_excess_is_refused_when_announced_and_when_not() -> None:
    sent_bytes = 0

    async def endless(_: bytes, writer: asyncio.StreamWriter) -> None:
        nonlocal sent_bytes
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            writer.write(b"x" * 10_000)
            await writer.drain()
            sent_bytes += 10_000

    assert await _code_of(_always(_answer(b"x" * 1001))) == "image_too_large"
    async with _server(_always(_answer(b"x" * 1000))) as (port, _):
        assert len(await _fetcher(port).fetch(f"http://image.test:{port}/")) == 1000
    assert await _code_of(endless) == "image_too_large"
    assert sent_bytes < 50_000_000


@pytest.mark.parametrize(
    "answer",
    [
        _answer(b"x", "Content-Encoding: gzip"),
        _answer(b"x", "Content-Encoding: br"),
        _answer(b"x", status="404 Not Found"),
        _answer(b"x", status="500 Error"),
        _answer(b"x", status="302 Found"),
        _answer(b"x", status="206 Partial Content"),
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort",
        b"SSH-2.0-OpenSSH_9.9\r\n",
        b"",
        b"HTTP/1.1 200 OK\r\n" + b"X: " + b"y" * 1_000_000 + b"\r\n\r\n",
    ],
    ids=["gzip", "br", "404", "500", "no location", "206", "cut", "ssh", "nothing", "long header"],
)
async def test_answer_that_is_not_an_image_file_fails(answer: bytes) -> None:
    assert await _code_of(_always(answer)) == "image_url_failed"


async def test_closed_port_fails() -> None:
    async with _server(_always(b"")) as (port, _):
        pass
    assert await _code(_fetcher(port), f"http://image.test:{port}/") == "image_url_failed"


async def test_https_to_a_plain_server_fails_and_names_the_host_in_tls() -> None:
    hello = b""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal hello
        hello = await reader.read(4096)
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        assert await _code(_fetcher(port), f"https://image.test:{port}/") == "image_url_failed"
    assert b"image.test" in hello


@pytest.mark.parametrize("host", [".test", "a..test", "a" * 64 + ".test"])
async def test_host_that_cannot_be_named_in_tls_is_forbidden_even_if_a_name_server_knows_it(
    host: str,
) -> None:
    names = Names(**{host: [["127.0.0.1"]]})

    assert await _code(_fetcher(443, names), f"https://{host}/") == "image_url_forbidden"
    assert names.asked == []


async def test_many_fetches_at_once_are_all_answered() -> None:
    async def slow(_: bytes, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(0.01)  # so that the fetches overlap
        writer.write(_answer(b"picture"))

    async with _server(slow) as (port, _):
        fetcher = _fetcher(port)
        found = await asyncio.gather(*(fetcher.fetch(f"http://image.test:{port}/{i}") for i in range(60)))
    assert found == [b"picture"] * 60


@pytest.mark.parametrize(
    "text",
    ["8.8.8.8", "1.1.1.1", "100.63.255.255", "100.128.0.1", "172.15.255.255", "172.32.0.1", "192.0.1.1", "192.88.98.1",
     "198.17.255.255", "198.20.0.1", "223.255.255.255", "2606:4700:4700::1111", "2001:200::1", "2003::1",
     "3ffe:ffff::1", "::ffff:8.8.8.8", "64:ff9b::808:808", "2002:808:808::1"],
)  # fmt: skip
def test_public_address_is_public(text: str) -> None:
    assert is_public(ipaddress.ip_address(text))


INNER_OR_SPECIAL = """
    127.0.0.1 127.255.255.254 10.1.2.3 172.16.0.1 172.31.255.255 192.168.1.1 169.254.169.254 100.64.0.1
    100.100.100.200 0.0.0.0 0.1.2.3 255.255.255.255 240.0.0.1 224.0.0.1 239.255.255.250 224.0.1.1 192.0.2.1
    198.51.100.1 203.0.113.1 198.18.0.1 198.19.255.255 168.63.129.16 192.0.0.1 192.0.0.9 192.0.0.192 192.88.99.1
    192.88.99.255
    :: ::1 ::127.0.0.1 ::8.8.8.8 ::ffff:10.0.0.1 ::ffff:169.254.169.254 ::ffff:224.0.1.1 ::ffff:168.63.129.16
    fe80::1 fec0::1 fc00::1 fd00:ec2::254 ff02::1 ff0e::1 2001:db8::1 100::1 4000::1
    2002:7f00:1::1 2002:a00:1::1 2001:0:7f00:1::f7f7:f7f7 2001:0:808:808::80ff:fefe
    64:ff9b::a00:1 64:ff9b::7f00:1 64:ff9b::c058:6301 64:ff9b:1::808:808 ::ffff:192.88.99.1 2002:c058:6301::1
    3fff::1 3fff:fff:ffff::1 5f00::1 100:0:0:1::1 ::ffff:0:808:808 2001:1::1 2001:2::1 2001:10::1 2001:20::1 2001:30::1
    2001:4:112::1
"""


@pytest.mark.parametrize("text", INNER_OR_SPECIAL.split())
def test_inner_or_special_address_is_not_public(text: str) -> None:
    assert not is_public(ipaddress.ip_address(text))
