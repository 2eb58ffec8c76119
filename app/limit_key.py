"""The middleware that limits one API key: its requests in progress, and the rate of requests, refusals and bodies."""

import asyncio
from contextlib import ExitStack

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.auth import identify
from app.errors import KeyLimitReached, Unauthorized
from app.keys import KeyRing
from app.places import Places
from app.rates import Rates
from app.responses import ErrorResponse

REFUSALS_PER_S = 10
REFUSAL_WAIT_S = 1.0
INFERENCE = frozenset(
    {"/match", "/match/compare", "/classify", "/classify/compare", "/embed", "/v1/embeddings", "/v2/embed"}
)
"""Requests whose images and texts have limits of their own."""
NO_KEY = "no key"
"""Stands for all requests without a valid key. No key has a space in its name."""


class LimitKey:
    """Limits how many requests of one API key are in progress, and how fast they are answered.

    A client that ignores Retry-After could be refused thousands of times a second, and would take a core for it. So a
    key that uses up its rate of `refusals`, by whichever of its limits, waits for each further one, and its connection
    is closed, so that no body has to be read to its end. All requests without a valid key together count as one key
    here, and no other limit holds for them.

    Answers that come faster than the rate of `requests` wait. Inference that succeeds does not count, since it is
    limited by its items. Bodies that come faster than the rate of `body_bytes` are read more slowly.
    """

    def __init__(
        self, app: ASGIApp, *, places: Places, requests: Rates, refusals: Rates, body_bytes: Rates
    ) -> None:
        self._app = app
        self._places = places
        self._requests = requests
        self._refusals = refusals
        self._body_bytes = body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        ring: KeyRing | None = scope["app"].state.key_ring if scope["type"] == "http" else None
        if ring is None:
            await self._app(scope, receive, send)
            return
        key = await identify(scope, ring)

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                await self._slow_down(NO_KEY if key is None else key.name, scope, message)
            await send(message)

        if key is None:
            await self._app(scope, receive, sending)
            return

        async def receiving() -> Message:
            message = await receive()
            if body := message.get("body"):
                await asyncio.sleep(self._body_bytes.owe(key.name, len(body)))
            return message

        with ExitStack() as place:
            try:
                place.enter_context(self._places.one(key.name))
            except KeyLimitReached as error:
                await ErrorResponse(error)(scope, receive, sending)
                return
            await self._app(scope, receiving, sending)

    async def _slow_down(self, key: str, scope: Scope, start: Message) -> None:
        """Hold back the start of an answer if the key has had too many."""
        if isinstance(scope["state"].get("error"), KeyLimitReached | Unauthorized):
            try:
                self._refusals.take(key, 1)
            except KeyLimitReached:
                await asyncio.sleep(REFUSAL_WAIT_S)
                MutableHeaders(scope=start)["Connection"] = "close"
        elif key != NO_KEY and not (scope["path"] in INFERENCE and start["status"] == 200):
            await asyncio.sleep(self._requests.owe(key, 1))
