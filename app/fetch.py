"""Images by URL, where the operator allows it: fetched from the public internet only.

The name is resolved here, every address that it has must be global, and the connection goes to the address
that was checked: a name that resolves otherwise the second time gains nothing. Each redirect is checked the
same way. What went wrong inside is not told, so that nobody maps the inner network by it.
"""

import asyncio
import ipaddress
import socket
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import httpcore
import httpx

from app.errors import InvalidImage
from app.settings import Settings

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Resolver = Callable[[str, int], Awaitable[list[str]]]

NAT64 = ipaddress.ip_network("64:ff9b::/96")
PORTS = {"http": 80, "https": 443}


def is_public(address: Address) -> bool:
    """Whether an address, and any IPv4 address inside it, is on the public internet."""
    return all(part.is_global and not part.is_multicast for part in (address, *_inner(address)))


def _inner(address: Address) -> list[Address]:
    """The IPv4 addresses that an IPv6 address leads to: mapped, 6to4, Teredo, NAT64."""
    if isinstance(address, ipaddress.IPv4Address):
        return []
    inner: list[Address | None] = [address.ipv4_mapped, address.sixtofour, *(address.teredo or ())]
    if address in NAT64:
        inner.append(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
    return [part for part in inner if part is not None]


async def resolve(host: str, port: int) -> list[str]:
    """All addresses of a name."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


class Forbidden(httpcore.ConnectError):
    """The name leads to an address that may not be fetched from."""


class PublicBackend(httpcore.AsyncNetworkBackend):
    """Connects to allowed addresses only, and to exactly those that it checked."""

    def __init__(self, *, resolver: Resolver, is_allowed: Callable[[Address], bool]) -> None:
        self._resolve = resolver
        self._is_allowed = is_allowed
        self._backend = httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Resolve, check every address, connect to the first that answers."""
        addresses = await self._resolve(host, port)
        if not addresses or not all(self._is_allowed(ipaddress.ip_address(address)) for address in addresses):
            raise Forbidden(host)
        for address in addresses:
            try:
                return await self._backend.connect_tcp(address, port, timeout)
            except httpcore.ConnectError:
                continue
        raise httpcore.ConnectError(host)

    async def connect_unix_socket(
        self, path: str, timeout: float | None = None, socket_options: Iterable[Any] | None = None
    ) -> httpcore.AsyncNetworkStream:
        """Never: a socket of this machine is not the public internet."""
        raise Forbidden(path)

    async def sleep(self, seconds: float) -> None:
        """Wait between tries."""
        await asyncio.sleep(seconds)


class Fetcher:
    """Fetches an image's bytes within limits of time, bytes and redirects."""

    def __init__(
        self,
        *,
        timeout_s: float,
        max_bytes: int,
        max_redirects: int,
        resolver: Resolver = resolve,
        is_allowed: Callable[[Address], bool] = is_public,
        ports: dict[str, int] | None = PORTS,
    ) -> None:
        self._timeout_s = timeout_s
        self._max_bytes = max_bytes
        self._max_redirects = max_redirects
        self._ports = ports
        transport = httpx.AsyncHTTPTransport(retries=0, trust_env=False)
        transport._pool = httpcore.AsyncConnectionPool(
            ssl_context=httpx.create_ssl_context(trust_env=False),
            network_backend=PublicBackend(resolver=resolver, is_allowed=is_allowed),
            max_connections=16,
            max_keepalive_connections=0,
        )
        self._transport = transport

    @classmethod
    def of(cls, settings: Settings) -> "Fetcher":
        """The fetcher that the settings ask for."""
        return cls(
            timeout_s=settings.url_timeout_s,
            max_bytes=settings.max_image_bytes,
            max_redirects=settings.url_max_redirects,
        )

    async def fetch(self, url: str) -> bytes:
        """The bytes behind `url`. Raises InvalidImage."""
        try:
            async with asyncio.timeout(self._timeout_s):
                return await self._follow(url)
        except TimeoutError:
            raise InvalidImage(
                f"The image did not arrive within {self._timeout_s:g} s.", code="image_url_timeout"
            ) from None
        except (httpx.HTTPError, httpx.InvalidURL, httpcore.ConnectError, OSError, ValueError):
            raise _failed() from None

    async def close(self) -> None:
        """Close the connections."""
        await self._transport.aclose()

    async def _follow(self, url: str) -> bytes:
        target = httpx.URL(url)
        for _ in range(self._max_redirects + 1):
            self._check(target)
            request = httpx.Request(
                "GET",
                target,
                headers={"User-Agent": "sds-clip", "Accept": "image/*", "Accept-Encoding": "identity"},
            )
            response = await self._transport.handle_async_request(request)
            response.request = request
            try:
                if not response.has_redirect_location:
                    return await self._read(response)
                target = target.join(response.headers["location"])
            finally:
                await response.aclose()
        raise InvalidImage(
            f"The URL redirects more than {self._max_redirects} times.", code="image_url_failed"
        )

    def _check(self, url: httpx.URL) -> None:
        if url.scheme not in PORTS or not url.host or url.userinfo:
            raise InvalidImage(
                "An image's URL is http or https, with a host and without a user.", code="image_url_forbidden"
            )
        if self._ports is not None and url.port not in (None, self._ports[url.scheme]):
            raise InvalidImage("An image's URL uses the standard port.", code="image_url_forbidden")

    async def _read(self, response: httpx.Response) -> bytes:
        if response.status_code != 200 or response.headers.get("content-encoding", "identity") != "identity":
            raise _failed()
        data = bytearray()
        async for chunk in response.aiter_raw():
            data += chunk
            if len(data) > self._max_bytes:
                raise InvalidImage(
                    f"The image has more than the {self._max_bytes} bytes that are allowed.",
                    code="image_too_large",
                )
        return bytes(data)


def _failed() -> InvalidImage:
    return InvalidImage("No image could be fetched from the URL.", code="image_url_failed")
