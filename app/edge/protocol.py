"""uvicorn's HTTP protocol with limits on what is not body: headers, trailers and chunk framing.

httptools stores any number of header bytes, and uvicorn waits for them without a timeout. Both happen before
an API key is read, so a client without a key could exploit them.
"""

import asyncio

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MAX_HEADER_BYTES = 64 * 2**10
HEADER_TIMEOUT_S = 15.0
UNREAD_BODY_TIMEOUT_S = 30.0
"""How long a body may continue to arrive after its request was answered."""


class BoundedHeadersProtocol(HttpToolsProtocol):
    """Closes connections that send too much or too slowly outside of a body.

    These are connections whose headers are too long or too slow, whose trailers do not end, or whose body
    does not end after it was answered: uvicorn stops its own timer as soon as another byte arrives.
    """

    _in_headers = True
    _in_body = False
    _silent_bytes = 0
    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._await_headers()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Count bytes that arrive without completing headers or adding to a body."""
        self._silent_bytes += len(data)
        super().data_received(data)
        if self._silent_bytes > MAX_HEADER_BYTES and not self.transport.is_closing():
            self._stop_timer()
            if self._in_headers:
                self.send_400_response("The headers are too long; send shorter headers.")
            else:
                self.transport.close()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._await_headers()

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep headers, and drop trailers, which are never used."""
        if self._in_headers:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Stop the header timer. The body has its own limits."""
        self._in_headers = False
        self._in_body = True
        self._silent_bytes = 0
        self._stop_timer()
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._silent_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._in_body = False
        self._stop_timer()
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """Start a timer for the rest of a body that was answered before it had arrived."""
        super().on_response_complete()
        # Without the second condition, the body could be that of a later, pipelined request.
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
