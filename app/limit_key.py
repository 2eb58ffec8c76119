"""The middleware that limits one API key: its requests in progress, and the rate of requests, refusals and bodies.

It also limits what one key's requests compute in a second while other keys are active.
"""

import asyncio
import time
from contextlib import ExitStack

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.auth import identify
from app.errors import KeyLimitReached, Unauthorized
from app.keys import KeyRing
from app.places import Places
from app.rates import Rates
from app.responses import ErrorResponse
from app.serving.turns import ACTIVE_S
from app.streamed_body import is_streamed
from app.time_spent import TimeSpent, counted

REFUSALS_PER_S = 10
REFUSAL_WAIT_S = 1.0
SHARE_OF_TIME = 0.1
"""Seconds that a key's requests may compute in a second, besides inference, while other keys are active."""
MAX_WAIT_S = 10.0
"""How long an answer is held back at most because its key has computed too much."""
PROBES = frozenset({"/health", "/ready", "/metrics"})
"""Routes that machines ask every few seconds. A flood of other requests without a key does not delay them."""
INFERENCE = frozenset(
    {"/match", "/match/compare", "/classify", "/classify/compare", "/embed", "/v1/embeddings", "/v2/embed"}
)
"""Requests whose images and texts have limits of their own."""
NO_KEY = "no key"
"""Stands for all requests without a valid key. No key has a space in its name."""
NO_KEY_PROBES = "no key, probes"


class LimitKey:
    """Limits how many requests of one API key are in progress, and how fast they are answered.

    A client that ignores Retry-After could be refused thousands of times a second, and would take a core for it. So a
    key that uses up its rate of `refusals`, by whichever of its limits, waits for each further one, and its connection
    is closed, so that no body has to be read to its end. All requests without a valid key together count as one key
    here, and so they do for the rate of answers.

    Answers that come faster than the rate of `requests` wait. Inference that succeeds does not count, since it is
    limited by its items and has turns. While other keys are active, answers also wait if their requests have computed
    more than the rate of `seconds`: one dry run takes as long as fifty small answers. Bodies that come faster than the
    rate of `body_bytes` are read more slowly.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        places: Places,
        requests: Rates,
        refusals: Rates,
        body_bytes: Rates,
        seconds: Rates,
    ) -> None:
        self._app = app
        self._places = places
        self._requests = requests
        self._refusals = refusals
        self._body_bytes = body_bytes
        self._seconds = seconds
        self._seen_at: dict[str, float] = {}
        """When each key has last asked. Keys come from the keys file, so there are few."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        ring: KeyRing | None = scope["app"].state.key_ring if scope["type"] == "http" else None
        if ring is None:
            await self._app(scope, receive, send)
            return
        key = await identify(scope, ring)
        spent = TimeSpent()

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                await self._slow_down(None if key is None else key.name, scope, message, spent)
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
            self._seen_at[key.name] = time.monotonic()
            await counted(self._app(scope, receiving, sending), spent)

    async def _slow_down(self, key: str | None, scope: Scope, start: Message, spent: TimeSpent) -> None:
        """Hold back the start of an answer if the key has had too many."""
        if isinstance(scope["state"].get("error"), KeyLimitReached | Unauthorized):
            try:
                self._refusals.take(key or NO_KEY, 1)
            except KeyLimitReached:
                await asyncio.sleep(REFUSAL_WAIT_S)
                MutableHeaders(scope=start)["Connection"] = "close"
        elif key is None:
            await asyncio.sleep(self._requests.owe(NO_KEY_PROBES if scope["path"] in PROBES else NO_KEY, 1))
        elif not (scope["path"] in INFERENCE and start["status"] == 200):
            wait_s = self._requests.owe(key, 1)
            if self._others_are_active(key) and not is_streamed(scope):
                wait_s = max(wait_s, min(MAX_WAIT_S, self._seconds.owe(key, spent.seconds)))
            await asyncio.sleep(wait_s)

    def _others_are_active(self, key: str) -> bool:
        since = time.monotonic() - ACTIVE_S
        return any(seen_at > since for name, seen_at in self._seen_at.items() if name != key)
