"""Refusals of a key: a client that asks again at once waits for them, so that they cost the service little."""

import asyncio

import pytest
from fastapi import FastAPI
from starlette.types import Message, Receive, Scope, Send

from app import limit_key
from app.errors import KeyLimitReached
from app.keys import Key
from app.limit_key import LimitKey
from app.places import Places
from app.rates import ItemRates
from app.responses import ErrorResponse


class Client:
    """Requests of keys, each in a task, through the limit and on to `app`."""

    def __init__(self, app: FastAPI, limit: LimitKey) -> None:
        self._app = app
        self._limit = limit

    def ask(self, key: str) -> "asyncio.Task[int]":
        return asyncio.create_task(self._ask(Key(name=key, sha256="0" * 64, scopes=["infer"])))

    async def _ask(self, key: Key) -> int:
        statuses: list[int] = []

        async def receive() -> Message:
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message: Message) -> None:
            if message["type"] == "http.response.start":
                statuses.append(message["status"])

        await self._limit({"type": "http", "app": self._app, "state": {"key": key}}, receive, send)
        return statuses[0]


@pytest.mark.parametrize("places", [0, 8], ids=["requests in flight", "a limit within"])
async def test_key_that_is_refused_all_the_time_waits_for_its_refusals_and_another_does_not(
    places: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(scope: Scope, receive: Receive, send: Send) -> None:
        await ErrorResponse(KeyLimitReached("max_things_per_key", 1, retry_after_s=1))(scope, receive, send)

    monkeypatch.setattr(limit_key, "REFUSAL_WAIT_S", 3600)
    app = FastAPI()
    app.state.key_ring = object()
    limit = LimitKey(
        refuse,
        places=Places(None, "requests", retry_after_s=1, per_key=places),
        refusals=ItemRates(2, lambda: 0.0),
    )
    client = Client(app, limit)

    assert [await client.ask("alice"), await client.ask("alice")] == [429, 429]
    third = client.ask("alice")
    assert await client.ask("bob") == 429
    assert not third.done()
    third.cancel()
