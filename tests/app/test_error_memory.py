"""A refused request leaves nothing in memory, though its error is kept for the log until the request ends."""

import gc
import time
import weakref

import pytest
from fastapi.testclient import TestClient

from sds_clip.app.edge import responses
from sds_clip.app.errors import ServiceError


@pytest.mark.parametrize(
    ("content", "media_type"),
    [
        (
            b"--b\r\n"
            + b'Content-Disposition: form-data; name="texts"\r\n\r\na\r\n--b\r\n' * 9000
            + b"--b--",
            "multipart/form-data; boundary=b",
        ),
        (b'{"images":["a"],"texts":["a"],"unknown":1}', "application/json"),
        (b'{"images":["a"],"texts":["a"]}', "application/json"),
    ],
    ids=["form", "unknown field", "image"],
)
def test_errors_and_what_their_frames_hold_are_let_go_without_the_garbage_collector(
    client: TestClient, content: bytes, media_type: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    errors: list[weakref.ref[ServiceError]] = []
    answered = responses.ErrorResponse

    class Noting(answered):  # type: ignore[misc, valid-type]
        def __init__(self, error: ServiceError, *rest: object) -> None:
            errors.append(weakref.ref(error))
            super().__init__(error, *rest)

    monkeypatch.setattr(responses, "ErrorResponse", Noting)
    client.post("/match", content=content, headers={"Content-Type": media_type})
    gc.collect()
    gc.disable()
    try:
        errors.clear()
        answer = client.post("/match", content=content, headers={"Content-Type": media_type})
        assert answer.status_code >= 400
        # The thread that decoded holds the error until the system lets it run on, which may be after the answer.
        given_up = time.monotonic() + 30
        while any(error() for error in errors) and time.monotonic() < given_up:
            time.sleep(0.01)
        assert [error() for error in errors] == [None]
    finally:
        gc.enable()
