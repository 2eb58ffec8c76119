"""uvicorn's HTTP protocol with bounds on what belongs to no body: headers, trailers and chunk framing.

httptools keeps header bytes without a limit, and uvicorn waits for them without one; both come before any
API key is read, so anybody could use them.
"""

import asyncio

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MAX_HEADER_BYTES = 64 * 2**10
HEADER_TIMEOUT_S = 15.0


class BoundedHeadersProtocol(HttpToolsProtocol):
    """Closes a connection whose headers are too long or too slow, or whose trailers do not end."""

    _in_headers = True
    _silent_bytes = 0
    _header_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for the first request."""
        super().connection_made(transport)
        self._await_headers()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop waiting."""
        self._stop_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Count what arrives without completing headers or adding to a body."""
        self._silent_bytes += len(data)
        super().data_received(data)
        if self._silent_bytes > MAX_HEADER_BYTES and not self.transport.is_closing():
            self._stop_timer()
            if self._in_headers:
                self.send_400_response("The headers are too long.")
            else:
                self.transport.close()

    def on_message_begin(self) -> None:
        """Begin to wait for the headers of the next request on the connection."""
        super().on_message_begin()
        self._await_headers()

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep headers; drop trailers, which nobody reads."""
        if self._in_headers:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Stop waiting: the body has limits of its own."""
        self._in_headers = False
        self._silent_bytes = 0
        self._stop_timer()
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Note that the body grows."""
        self._silent_bytes = 0
        super().on_body(body)

    def _await_headers(self) -> None:
        self._stop_timer()
        self._in_headers = True
        self._header_timer = self.loop.call_later(HEADER_TIMEOUT_S, self.transport.close)

    def _stop_timer(self) -> None:
        if self._header_timer is not None:
            self._header_timer.cancel()
            self._header_timer = None
