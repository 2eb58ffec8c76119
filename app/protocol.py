"""uvicorn's HTTP protocol with bounds on what arrives before a request's headers are complete.

httptools keeps header bytes without a limit, and uvicorn waits for them without one; both come before any
API key is read, so anybody could use them.
"""

import asyncio

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MAX_HEADER_BYTES = 64 * 2**10
HEADER_TIMEOUT_S = 15.0


class BoundedHeadersProtocol(HttpToolsProtocol):
    """Closes a connection whose headers are too long or too slow."""

    _header_bytes = 0
    _header_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for the first request."""
        super().connection_made(transport)
        self._await_headers()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop waiting."""
        self._headers_are_here()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Count what arrives while headers are awaited."""
        super().data_received(data)
        if self._header_timer is None:
            return
        self._header_bytes += len(data)
        if self._header_bytes > MAX_HEADER_BYTES:
            self._headers_are_here()
            self.send_400_response("The headers are too long.")

    def on_message_begin(self) -> None:
        """Begin to wait for the headers of the next request on the connection."""
        super().on_message_begin()
        self._await_headers()

    def on_headers_complete(self) -> None:
        """Stop waiting: the body has limits of its own."""
        self._headers_are_here()
        super().on_headers_complete()

    def _await_headers(self) -> None:
        self._headers_are_here()
        self._header_bytes = 0
        self._header_timer = self.loop.call_later(HEADER_TIMEOUT_S, self.transport.close)

    def _headers_are_here(self) -> None:
        if self._header_timer is not None:
            self._header_timer.cancel()
            self._header_timer = None
