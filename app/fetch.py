"""Fetches {"url"} images without giving access to the operator's network. It is off by default.

The host of every hop is resolved here, and all its addresses must be public. The connection goes to the
address that was checked, while TLS and the Host header keep the URL's name, so a second DNS answer (DNS
rebinding) has no effect. A host that does not exist and a host that is not public give the same error, so
errors do not reveal which it is.
"""

import asyncio
import ipaddress
import socket
import ssl
from collections.abc import Awaitable, Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import httpcore
import httpx

from sds_clip.app.addresses import Address, is_public
from sds_clip.app.errors import InvalidImage, UnusableImage
from sds_clip.models.images.decode import ImageTooLarge

Resolve = Callable[[str, int], Awaitable[Sequence[Address]]]
IsAllowed = Callable[[Address], bool]

TIMEOUT_S = 10.0
"""An image's URL must have sent its whole answer within this time."""
MAX_REDIRECTS = 3
_DEFAULT_PORTS = {"http": 80, "https": 443}
_REDIRECTS = frozenset([301, 302, 303, 307, 308])
_AT_ONCE = 16
_RESOLVER_THREADS = 8
_HEADERS = [(b"Accept", b"image/*"), (b"Accept-Encoding", b"identity"), (b"User-Agent", b"sds-clip")]

_forbidden = partial(UnusableImage, code="image_url_forbidden")
_failed = partial(UnusableImage, code="image_url_failed")


class Fetcher:
    """Fetches images from public hosts, with limits on time, bytes and redirects."""

    def __init__(
        self,
        *,
        max_bytes: int,
        timeout_s: float = TIMEOUT_S,
        max_redirects: int = MAX_REDIRECTS,
        is_allowed: IsAllowed = is_public,
        resolve: Resolve | None = None,
        allowed_ports: Iterable[int] = (80, 443),
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        self._max_bytes = max_bytes
        self._timeout_s = timeout_s
        self._max_redirects = max_redirects
        self._allowed_ports = frozenset(allowed_ports)
        self._ssl_context = ssl_context or httpx.create_ssl_context(trust_env=False)
        # Name lookups cannot be cancelled. They have their own threads, so slow ones delay nothing else.
        self._resolver = ThreadPoolExecutor(_RESOLVER_THREADS, thread_name_prefix="resolve")
        self._backend = _CheckedBackend(resolve or self._resolve, is_allowed)
        self.slots = asyncio.Semaphore(_AT_ONCE)
        """Callers hold a slot from before a fetch until its bytes are decoded, which bounds memory."""

    async def fetch(self, url: str) -> bytes:
        """Return the bytes at `url`, following redirects.

        Raises: InvalidImage (image_url_forbidden, image_url_failed, image_url_timeout, image_too_large).
        """
        try:
            async with asyncio.timeout(self._timeout_s):
                return await self._follow(url)
        except TimeoutError:
            raise UnusableImage(
                f"The image's URL did not send its whole answer within {self._timeout_s:g} s; send the image "
                "itself.",
                code="image_url_timeout",
            ) from None
        except (httpcore.NetworkError, httpcore.ProtocolError, httpcore.TimeoutException, OSError):
            raise _failed(
                "The server could not connect to the image's URL; check the URL, or send the image itself."
            ) from None

    async def close(self) -> None:
        """Shut down the resolver's threads, without waiting for lookups that are still running."""
        self._resolver.shutdown(wait=False, cancel_futures=True)

    async def _follow(self, url: str) -> bytes:
        target = self._checked(url)
        for _ in range(1 + self._max_redirects):
            answer = await self._get(target)
            if isinstance(answer, bytes):
                return answer
            target = self._checked(str(_joined(target, answer)))
        raise _failed(f"The image's URL redirects more than {self._max_redirects} times.")

    def _checked(self, url: str) -> httpx.URL:
        try:
            parsed = httpx.URL(url)
            host = parsed.host  # decoded here: a malformed `xn--` label is an error
            parsed.raw_host.decode("ascii").encode("idna")  # TLS does the same: no label is empty or too long
        except (httpx.InvalidURL, ValueError):
            raise _forbidden("The image's URL is not valid; correct it.") from None
        if parsed.scheme not in _DEFAULT_PORTS or not host:
            raise _forbidden("The image's URL must begin with https:// or http:// and name a host.")
        if parsed.userinfo:
            raise _forbidden("The image's URL must not contain a user name or password.")
        if (parsed.port or _DEFAULT_PORTS[parsed.scheme]) not in self._allowed_ports:
            raise _forbidden("The image's URL must use port 80 or 443.")
        return parsed

    async def _get(self, url: httpx.URL) -> bytes | str:
        """The body, or the target of a redirect."""
        # Each request has its own pool, so no connection, cookie or proxy outlives it.
        pool = httpcore.AsyncConnectionPool(ssl_context=self._ssl_context, network_backend=self._backend)
        target = httpcore.URL(
            scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path or b"/"
        )
        async with pool, pool.stream("GET", target, headers=_HEADERS) as response:
            headers = httpx.Headers(response.headers)
            if response.status in _REDIRECTS and "location" in headers:
                return headers["location"]
            if response.status != 200:
                raise _failed(f"The image's URL answered with status {response.status}.")
            if headers.get("content-encoding", "identity").strip().lower() != "identity":
                raise _failed(
                    "The image's URL sent a compressed body although none was requested; send the image itself."
                )
            return await self._read(response, headers.get("content-length", ""))

    async def _read(self, response: httpcore.Response, announced: str) -> bytes:
        if announced.isdecimal() and int(announced[:20]) > self._max_bytes:
            raise self._too_large()
        data = bytearray()
        async for chunk in response.aiter_stream():
            data += chunk
            if len(data) > self._max_bytes:
                raise self._too_large()
        return bytes(data)

    def _too_large(self) -> InvalidImage:
        return InvalidImage(
            f"The image has more than {self._max_bytes} bytes, which is the limit; make it smaller.",
            code=ImageTooLarge.code,
        )

    async def _resolve(self, host: str, port: int) -> list[Address]:
        """All addresses of a host name, or of an address in any form that the system understands."""

        def look_up() -> list[Address]:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            return [ipaddress.ip_address(str(entry[4][0]).partition("%")[0]) for entry in found]

        return await asyncio.get_running_loop().run_in_executor(self._resolver, look_up)


class _CheckedBackend(httpcore.AsyncNetworkBackend):
    """Connects only to hosts whose addresses are all allowed, and to one of those addresses, not the name."""

    def __init__(self, resolve: Resolve, is_allowed: IsAllowed) -> None:
        self._resolve = resolve
        self._is_allowed = is_allowed
        self._network = httpcore.AnyIOBackend()

    async def connect_tcp(self, host: str, port: int, *args: Any, **rest: Any) -> httpcore.AsyncNetworkStream:
        try:
            addresses = await self._resolve(host, port)
        except (OSError, ValueError):
            addresses = []
        if not addresses or not all(self._is_allowed(address) for address in addresses):
            raise _forbidden(
                "The image's URL does not lead to a public host; use a public URL, or send the image itself."
            )
        # IPv4 first: where IPv6 is not routed, waiting for it to fail would use up the time.
        ordered = sorted(addresses, key=lambda address: address.version)
        return await self._network.connect_tcp(str(ordered[0]), port, *args, **rest)


def _joined(url: httpx.URL, location: str) -> httpx.URL:
    try:
        return url.join(location)
    except (httpx.InvalidURL, ValueError):
        raise _failed("The image's URL redirects to an address that is not valid.") from None
