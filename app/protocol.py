"""uvicorn's HTTP protocol with bounds on what belongs to no body: headers, trailers and chunk framing.

httptools keeps header bytes without a limit, and uvicorn waits for them without one; both come before any
API key is read, so anybody could use them.
"""

import asyncio

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MAX_HEADER_BYTES = 64 * 2**10
HEADER_TIMEOUT_S = 15.0
UNREAD_BODY_TIMEOUT_S = 30.0
"""How long a body may go on arriving after its request was answered."""


class BoundedHeadersProtocol(HttpToolsProtocol):
    """Closes a connection whose headers are too long or too slow, whose trailers do not end, or whose body does not
    end after its answer: uvicorn stops its own timer as soon as another byte arrives.
    """

    _in_headers = True
    _in_body = False
    _silent_bytes = 0
    _timer: asyncio.TimerHandle | None = None

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
        self._in_body = True
        self._silent_bytes = 0
        self._stop_timer()
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Note that the body grows."""
        self._silent_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Stop waiting for the end of a body that was answered already."""
        self._in_body = False
        self._stop_timer()
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """Begin to wait for the end of a body that was answered before it had arrived."""
        super().on_response_complete()
        # Otherwise the body is that of a later, pipelined request.
        if self._in_body and self.cycle.response_complete:
            self._close_after(UNREAD_BODY_TIMEOUT_S)

    def _await_headers(self) -> None:
        self._in_headers = True
        self._close_after(HEADER_TIMEOUT_S)

    def _close_after(self, timeout_s: float) -> None:
        self._stop_timer()
        self._timer = self.loop.call_later(timeout_s, self.transport.close)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
