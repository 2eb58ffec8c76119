"""The middleware that limits one API key: its requests in progress, its refusals, and the rate of its bodies."""

import asyncio
from contextlib import ExitStack

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.auth import identify
from app.errors import KeyLimitReached
from app.keys import KeyRing
from app.places import Places
from app.rates import Rates
from app.responses import ErrorResponse

REFUSALS_PER_S = 10
REFUSAL_WAIT_S = 1.0


class LimitKey:
    """Limits how many requests of one API key are in progress. Requests without a valid key are refused later.

    A client that ignores Retry-After could be refused thousands of times a second, and would take a core for it. So a
    key that uses up its rate of `refusals`, by whichever of its limits, waits for each further one, and its connection
    is closed, so that no body has to be read to its end. Bodies that come faster than the rate of `body_bytes` are read
    more slowly.
    """

    def __init__(self, app: ASGIApp, *, places: Places, refusals: Rates, body_bytes: Rates) -> None:
        self._app = app
        self._places = places
        self._refusals = refusals
        self._body_bytes = body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        ring: KeyRing | None = scope["app"].state.key_ring if scope["type"] == "http" else None
        key = None if ring is None else await identify(scope, ring)
        if key is None:
            await self._app(scope, receive, send)
            return

        async def receiving() -> Message:
            message = await receive()
            if body := message.get("body"):
                await asyncio.sleep(self._body_bytes.owe(key.name, len(body)))
            return message

        async def sending(message: Message) -> None:
            is_start = message["type"] == "http.response.start"
            if is_start and isinstance(scope["state"].get("error"), KeyLimitReached):
                await self._slow_down(key.name, message)
            await send(message)

        with ExitStack() as place:
            try:
                place.enter_context(self._places.one(key.name))
            except KeyLimitReached as error:
                await ErrorResponse(error)(scope, receive, sending)
                return
            await self._app(scope, receiving, sending)

    async def _slow_down(self, key: str, refusal: Message) -> None:
        try:
            self._refusals.take(key, 1)
        except KeyLimitReached:
            await asyncio.sleep(REFUSAL_WAIT_S)
            MutableHeaders(scope=refusal)["Connection"] = "close"
