"""What a key that ignores its limits costs the service: its refusals wait, and so do its bodies."""

import asyncio

import pytest
from fastapi import FastAPI
from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app import limit_key
from app.errors import KeyLimitReached
from app.keys import Key
from app.limit_key import LimitKey
from app.places import Places
from app.rates import Rates
from app.responses import ErrorResponse


class Client:
    """Requests of keys, each in a task, through the limit and on to `app`."""

    def __init__(self, app: FastAPI, limit: LimitKey) -> None:
        self._app = app
        self._limit = limit

    def ask(self, key: str, body: bytes = b"") -> "asyncio.Task[Message]":
        """The start of the answer."""
        return asyncio.create_task(self._ask(Key(name=key, sha256="0" * 64, scopes=["infer"]), body))

    async def _ask(self, key: Key, body: bytes) -> Message:
        sent: list[Message] = []

        async def receive() -> Message:
            return {"type": "http.request", "body": body, "more_body": False}

        async def send(message: Message) -> None:
            sent.append(message)

        await self._limit(
            {"type": "http", "path": "/", "app": self._app, "state": {"key": key}}, receive, send
        )
        return sent[0]


async def refuse(scope: Scope, receive: Receive, send: Send) -> None:
    await ErrorResponse(KeyLimitReached("max_things_per_key", 1, retry_after_s=1))(scope, receive, send)


async def read(scope: Scope, receive: Receive, send: Send) -> None:
    await receive()
    await Response(status_code=204)(scope, receive, send)


def limited(app: ASGIApp, *, places: int = 8) -> Client:
    """Clients of a limit whose clock stands still: two refusals, and 1,000 bytes."""
    inner = FastAPI()
    inner.state.key_ring = object()
    rates = [Rates(per_s, lambda: 0.0) for per_s in (2, 1000)]
    requests = Places(None, "requests", retry_after_s=1, per_key=places)
    return Client(inner, LimitKey(app, places=requests, refusals=rates[0], body_bytes=rates[1]))


@pytest.mark.parametrize("places", [0, 8], ids=["requests in flight", "a limit within"])
async def test_key_that_is_refused_all_the_time_waits_for_its_refusals_and_another_does_not(
    places: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limit_key, "REFUSAL_WAIT_S", 3600)
    client = limited(refuse, places=places)

    assert [(await client.ask("alice"))["status"] for _ in range(2)] == [429, 429]
    third = client.ask("alice")
    assert (await client.ask("bob"))["status"] == 429
    assert not third.done()
    third.cancel()


async def test_a_refusal_that_waited_ends_its_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limit_key, "REFUSAL_WAIT_S", 0)
    client = limited(refuse)

    ended = [Headers(raw=(await client.ask("alice"))["headers"]).get("connection") for _ in range(3)]
    assert ended == [None, None, "close"]


async def test_bodies_that_come_too_fast_wait_and_those_of_another_key_do_not() -> None:
    client = limited(read)

    assert (await client.ask("alice", b"x" * 1000))["status"] == 204
    second = client.ask("alice", b"x" * 3_600_000)
    assert (await client.ask("bob", b"x" * 1000))["status"] == 204
    assert (await client.ask("alice"))["status"] == 204  # without a body
    assert not second.done()
    second.cancel()
