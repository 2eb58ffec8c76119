"""Whether the service of the embedded run is there."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from sds_clip.up.address import Address


class Handler(BaseHTTPRequestHandler):
    """Answers as the test has it."""

    status, body = 200, b"{}"

    def do_GET(self) -> None:
        self.send_response(self.status)
        self.end_headers()
        self.wfile.write(self.body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def handler() -> Iterator[tuple[Address, type[Handler]]]:
    """An address, and who answers there."""
    address = Address("127.0.0.1", 0)
    made = type("Made", (Handler,), {})
    server = ThreadingHTTPServer((address.host, address.port), made)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield address, made
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.mark.parametrize(
    ("status", "code", "is_ready"),
    [
        (200, None, True),
        (503, "unavailable", False),
        (503, "registry_away", False),
        (503, "version_damaged", True),  # workers are needed to publish it again
        (503, "model_not_ready", True),
    ],
)
def test_service_is_there_once_it_answers_or_only_lacks_the_promoted_version(
    handler: tuple[Address, type[Handler]], status: int, code: str | None, is_ready: bool
) -> None:
    address, answering = handler
    answering.status = status
    answering.body = json.dumps({"error": {"code": code, "message": "..."}}).encode()
    assert address.is_ready() is is_ready


def test_nobody_there_is_not_ready() -> None:
    assert not Address("127.0.0.1", 0).is_ready()
