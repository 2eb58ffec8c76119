"""What a key that ignores its limits costs the service: its refusals wait, and so do its answers and its bodies."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest
from fastapi import FastAPI
from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sds_clip.app.budgets import Budget, Rate
from sds_clip.app.edge import limit_key
from sds_clip.app.edge.limit_key import INFERENCE, MAX_DEBT_S, NO_KEY, NO_KEY_PROBES, LimitKey
from sds_clip.app.edge.responses import ErrorResponse
from sds_clip.app.edge.time_shares import TimeShares
from sds_clip.app.errors import BodyTimeout, KeyLimitReached, ServiceError, Unauthorized
from sds_clip.app.keys import Key
from sds_clip.app.routes import cohere, inference, openai

GIVEN_UP = 3


class Client:
    """Requests of keys, each in a task, through the limit and on to `app`."""

    def __init__(self, app: FastAPI, limit: LimitKey) -> None:
        self._app = app
        self._limit = limit

    def ask(
        self, key: str | None, body: bytes | ServiceError = b"", *, path: str = "/", stays: bool = True
    ) -> "asyncio.Task[Message]":
        """The start of the answer, which is empty if the client has gone. A key of None stands for a wrong one.

        A body that is an error exceeds another limit.
        """
        found = None if key is None else Key(name=key, sha256="0" * 64, scopes=["infer"])
        return asyncio.create_task(self._ask(found, body, path, stays))

    async def _ask(self, key: Key | None, body: bytes | ServiceError, path: str, stays: bool) -> Message:
        sent: list[Message] = []

        async def receive() -> Message:
            if not stays:
                return {"type": "http.disconnect"}
            if isinstance(body, ServiceError):
                raise body
            return {"type": "http.request", "body": body, "more_body": False}

        async def send(message: Message) -> None:
            sent.append(message)

        await self._limit(
            {
                "type": "http",
                "method": "GET",
                "path": path,
                "headers": [],
                "app": self._app,
                "state": {"key": key},
            },
            receive,
            send,
        )
        return sent[0] if sent else {}


async def refuse(scope: Scope, receive: Receive, send: Send) -> None:
    await ErrorResponse(KeyLimitReached("max_things_per_key", 1, retry_after_s=1))(scope, receive, send)


async def reject(scope: Scope, receive: Receive, send: Send) -> None:
    await ErrorResponse(Unauthorized("Send a key."))(scope, receive, send)


async def answer(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer with the status that the body names, or 200."""
    await Response(status_code=int((await receive())["body"] or 200))(scope, receive, send)


async def read(scope: Scope, receive: Receive, send: Send) -> None:
    await receive()
    await Response(status_code=204)(scope, receive, send)


def limited(app: ASGIApp, *, places: int = 8, in_debt: str = "") -> Client:
    """Clients of a limit whose clock stands still: two requests, two refusals, and 1,000 bytes.

    The key `in_debt` has had requests for an hour.
    """
    inner = FastAPI()
    inner.state.key_ring = object()
    requests, refusals, body_bytes = (Rate(per_s, clock=lambda: 0.0) for per_s in (2, 2, 1000))
    requests.owe(in_debt, 2 * 3600)
    in_progress = Budget(None, limit="max_requests_per_key", per_key=places)
    limit = LimitKey(
        app,
        in_progress=in_progress,
        requests=requests,
        refusals=refusals,
        body_bytes=body_bytes,
        given_up=Rate(GIVEN_UP, clock=lambda: 0.0),
        shares=TimeShares(Rate(1)),
    )
    return Client(inner, limit)


def limited_by(client: Client, app: ASGIApp) -> Client:
    """Another app behind the limit of a client."""
    return Client(client._app, replace(client._limit, app=app))


@contextmanager
def waiting(request: "asyncio.Task[Message]") -> Iterator[None]:
    """Until here, it has no answer."""
    yield
    assert not request.done()
    request.cancel()


@pytest.fixture
def waits_last(monkeypatch: pytest.MonkeyPatch) -> None:
    """What waits, waits until the test is over, however busy the cores are."""
    monkeypatch.setattr(limit_key, "sleep", lambda seconds: asyncio.sleep(3600 if seconds else 0))


@pytest.mark.usefixtures("waits_last")
@pytest.mark.parametrize("places", [0, 8], ids=["requests in flight", "a limit within"])
async def test_key_that_is_refused_all_the_time_waits_for_its_refusals_and_another_does_not(
    places: int,
) -> None:
    client = limited(refuse, places=places)

    assert [(await client.ask("alice"))["status"] for _ in range(2)] == [429, 429]
    with waiting(client.ask("alice")):
        assert (await client.ask("bob"))["status"] == 429


async def test_a_refusal_that_waited_ends_its_connection() -> None:
    client = limited(refuse)

    ended = [Headers(raw=(await client.ask("alice"))["headers"]).get("connection") for _ in range(3)]
    assert ended == [None, None, "close"]


async def test_bodies_that_come_too_fast_wait_and_those_of_another_key_do_not() -> None:
    client = limited(read)

    assert (await client.ask("alice", b"x" * 1000))["status"] == 204
    with waiting(client.ask("alice", b"x" * 3_600_000)):
        assert (await client.ask("bob", b"x" * 1000))["status"] == 204
        assert (await client.ask("alice"))["status"] == 204  # without a body


@pytest.mark.usefixtures("waits_last")
async def test_wrong_keys_wait_for_their_refusals_and_no_valid_key_does() -> None:
    wrong = limited(reject)
    assert [(await wrong.ask(None))["status"] for _ in range(2)] == [401, 401]
    with waiting(wrong.ask(None)):
        assert (await wrong.ask("alice"))["status"] == 401


async def test_answers_without_a_key_wait_together_and_delay_no_probe_and_no_key() -> None:
    client = limited(answer, in_debt=NO_KEY)

    with waiting(client.ask(None, path="/openapi.json")):
        assert (await client.ask(None, path="/health"))["status"] == 200
        assert (await client.ask("alice"))["status"] == 200

    probes = limited(answer, in_debt=NO_KEY_PROBES)
    with waiting(probes.ask(None, path="/metrics")):
        assert (await probes.ask("alice", path="/metrics"))["status"] == 200


async def test_answers_without_a_key_wait_for_half_a_second_at_most_however_many_there_are() -> None:
    client = limited(answer, in_debt=NO_KEY_PROBES)
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(limit_key, "sleep", sleep)
        for _ in range(100):
            await client.ask(None, path="/health")
    assert set(waits) == {limit_key.NO_KEY_WAIT_S}


async def give_up(client: Client, times: int) -> None:
    async def hang(scope: Scope, receive: Receive, send: Send) -> None:
        await asyncio.sleep(3600)

    for _ in range(times):
        given_up = limited_by(client, hang).ask("alice")
        await asyncio.sleep(0)
        given_up.cancel()
        await asyncio.wait([given_up])


async def test_requests_that_are_given_up_count_as_answers() -> None:
    client = limited(answer)
    await give_up(client, 2)
    with waiting(client.ask("alice")):
        assert (await client.ask("bob"))["status"] == 200


async def test_key_whose_requests_are_given_up_too_fast_is_refused_for_a_while() -> None:
    client = limited(answer)
    await give_up(client, GIVEN_UP)
    assert (await client.ask("alice", path="/match"))["status"] == 200
    await give_up(client, 3600)
    refused = await client.ask("alice", path="/match")
    assert refused["status"] == 429
    assert Headers(raw=refused["headers"])["retry-after"] == f"{MAX_DEBT_S:.0f}"
    assert (await client.ask("bob", path="/match"))["status"] == 200


async def test_key_whose_clients_leave_their_refusals_too_stays_refused() -> None:
    """Else its clients would be back after each pause, and the first of them would compute for nothing."""
    client, now = limited(answer), 0.0
    client._limit.given_up = Rate(GIVEN_UP, clock=lambda: now)
    await give_up(client, 3600)
    for _ in range(2 * int(MAX_DEBT_S)):
        now += 1
        await asyncio.gather(*(client.ask("alice", path="/match", stays=False) for _ in range(2 * GIVEN_UP)))
    assert client._limit.given_up.debt_s("alice") > MAX_DEBT_S / 2
    assert (await client.ask("bob", path="/match"))["status"] == 200


async def test_refusal_is_told_whatever_becomes_of_the_body_meanwhile() -> None:
    client = limited(answer, places=0)
    buffered = KeyLimitReached("max_buffered_bytes_per_key", 1, retry_after_s=1)
    refused = [await client.ask("alice", error) for error in (buffered, BodyTimeout("Too slow.")) * 3]
    assert [start["status"] for start in refused] == [429] * 6


async def test_key_whose_clients_wait_for_their_refusals_is_served_again() -> None:
    client, now = limited(answer), 0.0
    client._limit.given_up = Rate(GIVEN_UP, clock=lambda: now)
    await give_up(client, 3600)
    refused = [client.ask("alice", path="/match") for _ in range(100 * GIVEN_UP)]
    await asyncio.sleep(0)
    now += MAX_DEBT_S + 1
    assert (await client.ask("alice", path="/match"))["status"] == 200
    for each in refused:
        each.cancel()


async def test_answers_that_come_too_fast_wait_and_those_of_another_key_do_not() -> None:
    client = limited(answer, in_debt="alice")

    with waiting(client.ask("alice")):
        assert [(await client.ask("bob"))["status"] for _ in range(2)] == [200, 200]


async def test_inference_that_succeeds_does_not_wait_and_one_that_fails_does() -> None:
    client = limited(answer, in_debt="alice")

    with waiting(client.ask("alice", b"422", path="/match")):
        for path in INFERENCE:
            assert (await client.ask("alice", path=path))["status"] == 200


def test_every_route_of_inference_is_known() -> None:
    routes = [route for module in (inference, openai, cohere) for route in module.router.routes]
    assert {route.path for route in routes if "POST" in route.methods} == INFERENCE  # type: ignore[attr-defined]
