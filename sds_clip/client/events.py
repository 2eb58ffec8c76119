"""A job's events as they happen, over any number of connections (Server-Sent Events), without sending anything."""

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from sds_clip.client.answers import checked
from sds_clip.client.calls import below
from sds_clip.client.errors import APIError, ClientError, ConnectionFailed

PATIENCE_S = 120.0
"""How long a service may be away before following it is given up."""
SILENCE_S = 60.0
"""How long a connection may say nothing: the service sends something every 15 s."""
_PAUSE_S = 1.0
_NO_CONTENT = 204


@dataclass(frozen=True)
class Frame:
    """`status`, `message` and `metrics` are events and have an id; `progress` and `done` have none."""

    name: str
    data: dict[str, Any]
    id: int | None = None


class Follower:
    """Knows what was seen, so that a new connection goes on after it."""

    def __init__(self, job_id: str, after: int = 0) -> None:
        self.path = below("jobs", job_id, "events")
        self.ended = False
        self._after = after
        self._seen: int | None = None
        self._buffer = b""
        self._heard_at = time.monotonic()

    @property
    def params(self) -> dict[str, int]:
        """Of the next connection."""
        return {"after": self._after}

    @property
    def headers(self) -> dict[str, str]:
        """Of the next connection."""
        headers = {"Accept": "text/event-stream"}
        return headers if self._seen is None else {**headers, "Last-Event-ID": str(self._seen)}

    def opened(self, response: Any) -> None:
        """Look at an answer's status; the body of an error must have been read. Raises APIError."""
        checked(response)
        self._buffer = b""
        self._heard_at = time.monotonic()
        self.ended = response.status_code == _NO_CONTENT

    def feed(self, chunk: bytes) -> Iterator[Frame]:
        """The frames that have come to their end with these bytes."""
        self._heard_at = time.monotonic()
        # By hand: splitting text into lines would also split at separators that captions may hold.
        *blocks, self._buffer = (self._buffer + chunk).split(b"\n\n")
        for block in blocks:
            frame = _frame(block)
            if frame is not None:
                self._seen = frame.id or self._seen
                self.ended = self.ended or frame.name == "done"
                yield frame

    def pause_s(self, error: ClientError | None) -> float:
        """How long to wait before the next connection. Raises the error once it is time to give up."""
        if error is None:
            return _PAUSE_S
        hopeless = isinstance(error, APIError) and error.retry_after_s is None
        if hopeless or time.monotonic() - self._heard_at > PATIENCE_S:
            raise error
        return _PAUSE_S if isinstance(error, ConnectionFailed) else error.retry_after_s or _PAUSE_S


def _frame(block: bytes) -> Frame | None:
    fields: dict[str, str] = {}
    for line in block.decode().split("\n"):
        name, colon, value = line.partition(":")
        if colon and name:
            fields[name] = value.removeprefix(" ")
    if "data" not in fields:  # a heartbeat, or how soon to come back
        return None
    number = fields.get("id")
    return Frame(
        fields.get("event", "message"), json.loads(fields["data"]), None if number is None else int(number)
    )
