"""The middleware that limits one API key: its requests in progress, and the rate of requests, refusals and bodies.

It also limits what one key's requests compute in a second while other keys are active.
"""

import asyncio
import contextlib
import math
from asyncio import sleep
from dataclasses import dataclass

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sds_clip.app.budgets import Budget, Rate
from sds_clip.app.edge.auth import identify
from sds_clip.app.edge.responses import ErrorResponse
from sds_clip.app.edge.streamed_body import is_streamed
from sds_clip.app.edge.time_shares import TimeShares
from sds_clip.app.errors import KeyLimitReached, Overloaded, ServiceError, Unauthorized
from sds_clip.app.keys import KeyRing

REFUSED = frozenset({Unauthorized.status, Overloaded.status})
REFUSALS_PER_S = 10
REFUSAL_WAIT_S = 5.0
"""How long a refusal is held back at most. A refused request may have cost much: its body may have been parsed."""
DROPPED_PARTS = 2
"""How much is read of a body that is refused, to see its client go. The server passes on up to 64 KiB at once."""
MAX_DEBT_S = 10.0
"""A key whose clients have stopped giving up is served again after so long at most."""
NO_KEY_WAIT_S = 0.5
"""How long an answer without a key is held back at most. A probe is given up after a second, often."""
PROBES = frozenset({"/health", "/ready", "/metrics"})
"""Routes that machines ask every few seconds. A flood of other requests without a key does not delay them."""
INFERENCE = frozenset(
    {"/match", "/match/compare", "/classify", "/classify/compare", "/embed", "/v1/embeddings", "/v2/embed"}
)
"""Requests whose images and texts have limits of their own."""
NO_KEY = "no key"
"""Stands for all requests without a valid key. No key has a space in its name."""
NO_KEY_PROBES = "no key, probes"


@dataclass(eq=False)
class LimitKey:
    """Limits how many requests of one API key are in progress, and how fast they are answered.

    A client that ignores Retry-After could be refused thousands of times a second, and would take a core for it. So a
    key that uses up its rate of `refusals`, by whichever limit, waits for the further ones. Their connections are
    closed, so that no body has to be read to its end. All requests without a valid key together count as one key here,
    and so they do for the rate of answers.

    Answers that come faster than the rate of `requests` wait. Inference that succeeds does not count, since it is
    limited by its items and has turns. Other requests also wait, before they begin, for their key's share of time.
    Bodies that come faster than the rate of `body_bytes` are read more slowly. A client that goes before its answer
    waits for nothing, so a key is refused while its clients give up requests faster than the rate of `given_up`.
    """

    app: ASGIApp
    in_progress: Budget
    requests: Rate
    refusals: Rate
    body_bytes: Rate
    given_up: Rate
    shares: TimeShares

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        ring: KeyRing | None = scope["app"].state.key_ring if scope["type"] == "http" else None
        if ring is None:
            await self.app(scope, receive, send)
            return
        key = await identify(scope, ring)
        began = False

        async def sending(message: Message) -> None:
            nonlocal began
            if message["type"] == "http.response.start":
                await self._slow_down(None if key is None else key.name, scope, message)
                began = True
            await send(message)

        if key is None:
            await self.app(scope, receive, sending)
            return

        async def receiving() -> Message:
            message = await receive()
            if (body := message.get("body")) and (wait_s := self.body_bytes.owe(key.name, len(body))):
                await sleep(wait_s)
            return message

        async def answer() -> None:
            await self.app(scope, receiving, sending)

        try:
            self._check_given_up(key.name)
            with self.in_progress.hold(1, key.name):
                self.shares.see(key.name)
                if scope["path"] in INFERENCE or is_streamed(scope):
                    await answer()
                else:
                    await self.shares.run(key.name, answer)
        except KeyLimitReached as error:
            wait_s = self.refusals.owe(key.name, 1, most_s=REFUSAL_WAIT_S)
            if not (wait_s and await _leaves(receiving, wait_s)):
                began = True
                await ErrorResponse(error, {"Connection": "close"} if wait_s else None)(scope, receive, send)
        finally:
            if not began:  # the client has gone
                self.requests.owe(key.name, 1, most_s=MAX_DEBT_S)
                self.given_up.owe(key.name, 1, most_s=MAX_DEBT_S)

    def _check_given_up(self, key: str) -> None:
        if debt_s := self.given_up.debt_s(key):
            raise KeyLimitReached(
                "max_requests_per_s_per_key",
                self.requests.per_s,
                retry_after_s=math.ceil(debt_s),
                advice="its clients leave before they are answered; wait for the answers, or send fewer requests",
            )

    async def _slow_down(self, key: str | None, scope: Scope, start: Message) -> None:
        """Hold back the start of an answer if the key has had too many."""
        if start["status"] in REFUSED:
            if wait_s := self.refusals.owe(key or NO_KEY, 1, most_s=REFUSAL_WAIT_S):
                await sleep(wait_s)
                MutableHeaders(scope=start)["Connection"] = "close"
        elif key is None:
            line = NO_KEY_PROBES if scope["path"] in PROBES else NO_KEY
            await sleep(self.requests.owe(line, 1, most_s=NO_KEY_WAIT_S))
        elif not (scope["path"] in INFERENCE and start["status"] == 200):
            await sleep(self.requests.owe(key, 1))


async def _leaves(receive: Receive, seconds: float) -> bool:
    """Whether the client goes within that time. The beginning of a body that it sends meanwhile is dropped."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            with contextlib.suppress(ServiceError):  # a body beyond another limit is refused all the same
                for _ in range(DROPPED_PARTS):
                    if (await receive())["type"] == "http.disconnect":
                        return True
            await sleep(seconds)
    return False
