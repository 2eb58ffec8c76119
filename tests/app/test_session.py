"""The cookie of a session: what it holds, when it opens, and the secret that seals it."""

import asyncio
import base64
import multiprocessing
import os
import stat
import threading
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import httpx
import pytest
from fastapi import Depends, FastAPI
from starlette.testclient import TestClient

from sds_clip.app.edge import auth, responses
from sds_clip.app.edge.session import COOKIE, Session, Sessions
from sds_clip.app.errors import Unavailable
from sds_clip.app.keys import create_key
from sds_clip.app.routes import session as routes
from sds_clip.app.settings import Settings

HASH = "0123456789abcdef" * 4
HOUR_S = 3600


class Clock:
    def __init__(self) -> None:
        self.now_s = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def secret_file(tmp_path: Path) -> Path:
    return tmp_path / "data" / "session.key"


@pytest.fixture
def sessions(secret_file: Path, clock: Clock) -> Sessions:
    return Sessions(secret_file, lifetime_s=HOUR_S, clock=clock)


async def test_cookie_opens_to_what_it_was_sealed_with(sessions: Sessions, clock: Clock) -> None:
    cookie, session = sessions.start(HASH)

    assert await sessions.open(cookie) == session
    assert session == Session(HASH, session.csrf_token, clock.now_s + HOUR_S)
    assert len(session.csrf_token) == 43
    bytes_of_it = base64.urlsafe_b64decode(cookie)
    for held in (HASH, session.csrf_token):
        assert held.encode() not in bytes_of_it
        assert bytes.fromhex(HASH) not in bytes_of_it


def test_each_session_has_a_token_and_a_cookie_of_its_own(sessions: Sessions) -> None:
    started = [sessions.start(HASH) for _ in range(3)]

    assert len({cookie for cookie, _ in started}) == 3
    assert len({session.csrf_token for _, session in started}) == 3


async def test_session_ends_at_its_time(sessions: Sessions, clock: Clock) -> None:
    cookie, session = sessions.start(HASH)

    clock.now_s = session.expires_at
    assert await sessions.open(cookie) == session
    clock.now_s += 1
    assert await sessions.open(cookie) is None


async def test_shorter_lifetime_counts_for_sessions_that_have_begun(
    sessions: Sessions, secret_file: Path, clock: Clock
) -> None:
    cookie, _ = sessions.start(HASH)
    shorter = Sessions(secret_file, lifetime_s=60, clock=clock)

    opened = await shorter.open(cookie)
    assert opened is not None
    assert opened.expires_at == clock.now_s + 60
    clock.now_s += 61
    assert await shorter.open(cookie) is None


async def test_tampered_cookie_does_not_open(sessions: Sessions) -> None:
    cookie, _ = sessions.start(HASH)
    sealed = base64.urlsafe_b64decode(cookie)

    for place in range(len(sealed)):
        changed = bytearray(sealed)
        changed[place] ^= 1
        assert await sessions.open(base64.urlsafe_b64encode(changed).decode()) is None


async def test_truncated_cookie_does_not_open(sessions: Sessions) -> None:
    cookie, _ = sessions.start(HASH)

    for length in range(len(cookie.rstrip("="))):
        assert await sessions.open(cookie[:length]) is None


@pytest.mark.parametrize("garbage", ["", "=", "a", "é", "gAAAAA==", "x" * 4000, '"quoted"'])
async def test_garbage_does_not_open(sessions: Sessions, garbage: str) -> None:
    sessions.start(HASH)

    assert await sessions.open(garbage) is None


async def test_cookie_of_another_service_does_not_open(
    sessions: Sessions, tmp_path: Path, clock: Clock
) -> None:
    sessions.start(HASH)
    cookie, _ = Sessions(tmp_path / "other.key", lifetime_s=HOUR_S, clock=clock).start(HASH)

    assert await sessions.open(cookie) is None


async def test_secret_is_made_when_it_is_needed_and_for_its_owner_only(
    sessions: Sessions, secret_file: Path
) -> None:
    assert await sessions.open("anything") is None
    assert not secret_file.exists()

    sessions.start(HASH)
    assert stat.S_IMODE(secret_file.stat().st_mode) == 0o600
    made = secret_file.read_bytes()
    sessions.start(HASH)
    assert secret_file.read_bytes() == made


@pytest.mark.parametrize("damage", [Path.unlink, Path.touch, lambda path: path.write_bytes(b"short")])
async def test_lost_or_damaged_secret_only_signs_people_out(
    sessions: Sessions, secret_file: Path, clock: Clock, damage: object
) -> None:
    old, _ = sessions.start(HASH)
    other = Sessions(secret_file, lifetime_s=HOUR_S, clock=clock)

    secret_file.write_bytes(b"")
    damage(secret_file)  # type: ignore[operator]
    assert await other.open(old) is None
    cookie, session = other.start(HASH)
    assert await sessions.open(cookie) == session
    assert [await each.open(old) for each in (sessions, other)] == [None, None]


async def test_secret_that_cannot_be_read_for_a_while_signs_nobody_out(
    sessions: Sessions, secret_file: Path
) -> None:
    cookie, session = sessions.start(HASH)
    secret_file.unlink()

    assert await sessions.open("garbage") is None
    assert await sessions.open(cookie) == session


async def test_data_folder_that_does_not_respond_holds_up_only_cookies_that_do_not_open(
    sessions: Sessions, secret_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sds_clip.app.edge.session.READ_WAIT_S", 0.05)
    cookie, session = sessions.start(HASH)
    secret_file.unlink()
    os.mkfifo(secret_file)  # whoever reads it waits for a writer
    before = set(threading.enumerate())

    garbage = [asyncio.create_task(sessions.open("garbage")) for _ in range(20)]
    assert await sessions.open(cookie) == session
    assert await asyncio.gather(*garbage) == [None] * 20
    assert len(set(threading.enumerate()) - before) == 1

    with secret_file.open("wb"):  # lets the reader end
        pass
    assert sessions._reading is not None
    await sessions._reading


async def test_ended_sessions_open_nowhere_and_new_ones_do_also_after_a_restart(
    sessions: Sessions, secret_file: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sds_clip.app.edge.session.RECHECK_S", 0.0)
    other = Sessions(secret_file, lifetime_s=HOUR_S, clock=clock)
    copied, former = sessions.start(HASH)
    of_another_key, unharmed = sessions.start("f" * 64)
    assert await other.open(copied) == former

    clock.now_s -= 30  # the clock of this host is behind
    sessions.end_all(HASH)
    restarted = Sessions(secret_file, lifetime_s=HOUR_S, clock=clock)
    cookie, session = other.start(HASH)
    for each in (sessions, other, restarted):
        assert await each.open(copied) is None
        assert each.has_ended(former)
        assert await each.open(of_another_key) == unharmed
        assert await each.open(cookie) == session
        assert not each.has_ended(session)

    other.end_all(HASH)
    assert [await each.open(cookie) for each in (sessions, other, restarted)] == [None] * 3
    assert stat.S_IMODE(secret_file.with_suffix(".ended").stat().st_mode) == 0o600


@pytest.mark.parametrize("damage", ["lost", "garbage", "folder"])
async def test_ended_sessions_stay_so_while_the_endings_cannot_be_read(
    sessions: Sessions, secret_file: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    monkeypatch.setattr("sds_clip.app.edge.session.RECHECK_S", 0.0)
    copied, _ = sessions.start(HASH)
    sessions.end_all(HASH)
    cookie, session = sessions.start(HASH)
    ended = secret_file.with_suffix(".ended")
    ended.unlink()
    if damage == "garbage":
        ended.write_text('{"a": ')
    if damage == "folder":
        ended.mkdir()

    assert await sessions.open(copied) is None
    assert await sessions.open(cookie) == session
    if damage != "lost":  # then nobody knows that sessions were ended
        restarted = Sessions(secret_file, lifetime_s=HOUR_S, clock=clock)
        assert [await restarted.open(each) for each in (copied, cookie)] == [None, None]
        with pytest.raises(Unavailable):
            restarted.start(HASH)


async def test_sessions_that_are_ended_at_once_in_several_processes_are_all_ended(tmp_path: Path) -> None:
    with ProcessPoolExecutor(4, multiprocessing.get_context("spawn")) as pool:
        sessions = Sessions(tmp_path / "session.key", lifetime_s=HOUR_S)
        cookies = [sessions.start(f"{number:064x}")[0] for number in range(8)]
        for each in [pool.submit(Sessions.end_all, sessions, f"{number:064x}") for number in range(8)]:
            each.result()
        again = Sessions(tmp_path / "session.key", lifetime_s=HOUR_S)
        assert [await again.open(cookie) for cookie in cookies] == [None] * 8


async def test_processes_that_need_the_secret_at_once_make_one(tmp_path: Path) -> None:
    with ProcessPoolExecutor(4, multiprocessing.get_context("spawn")) as pool:
        for number in range(25):
            sessions = Sessions(tmp_path / f"{number}.key", lifetime_s=HOUR_S)
            waiting = [pool.submit(sessions.start, HASH) for _ in range(4)]
            started = [each.result() for each in waiting]  # all: one that has opened a cookie has no pickle
            for cookie, session in started:
                assert await sessions.open(cookie) == session


def signing_in(folder: Path, method: str = "GET") -> tuple[str, FastAPI]:
    """A key, and an app with the routes of sessions and one that needs the key."""
    key = create_key(folder / "keys.json", "phone", ["infer"])
    app = FastAPI()
    app.include_router(routes.router)
    dependencies = [Depends(auth.requires("infer"))]
    app.add_api_route("/thing", lambda: "thing", methods=[method], dependencies=dependencies)
    responses.install_error_handlers(app)
    auth.install(app, Settings(keys_file=folder / "keys.json", data_dir=folder))
    return key, app


async def test_wrong_key_waits_for_its_answer_and_a_right_one_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(routes, "WRONG_KEY_WAIT_S", 3600)
    key, app = signing_in(tmp_path)

    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        wrong = asyncio.create_task(client.post("/session", json={"key": "sdsclip_wrong"}))
        assert (await client.post("/session", json={"key": key})).status_code == 200
        assert not wrong.done()
        wrong.cancel()


@pytest.mark.parametrize("damage", ["garbage", "folder"])
def test_damaged_endings_refuse_to_sign_in_or_out_everywhere_and_the_log_says_what_to_do(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: str
) -> None:
    key, app = signing_in(tmp_path)
    client, ended = TestClient(app, raise_server_exceptions=False), tmp_path / "session.ended"
    if damage == "garbage":
        ended.write_text("{broken")
    else:
        ended.mkdir()

    headers = {"Authorization": f"Bearer {key}"}
    for answer in (
        client.post("/session", json={"key": key}),
        client.delete("/session?everywhere=true", headers=headers),
    ):
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "unavailable"), answer.text
    assert caplog.text.count(f"{ended} cannot be read") == 2
    assert caplog.text.count("Remove it together with session.key") == 2


@pytest.mark.parametrize(("method", "status"), [("GET", 200), ("HEAD", 200), ("OPTIONS", 200), ("PUT", 403)])
def test_methods_that_change_nothing_need_no_token(tmp_path: Path, method: str, status: int) -> None:
    key, app = signing_in(tmp_path, method)
    client = TestClient(app)

    assert client.request(method, "/thing").status_code == 401
    token = client.post("/session", json={"key": key}).json()["csrf_token"]
    assert client.request(method, "/thing").status_code == status
    assert client.request(method, "/thing", headers={"X-CSRF-Token": token}).status_code == 200


def test_cookie_holds_below_the_path_of_a_reverse_proxy_and_nowhere_else(tmp_path: Path) -> None:
    header = routes.set_cookie("sealed", max_age_s=60, is_secure=True)
    jar = httpx.Cookies()
    request = httpx.Request("POST", "https://example.org/clip/session")
    jar.extract_cookies(httpx.Response(200, headers={"Set-Cookie": header}, request=request))

    def sent(url: str) -> str | None:
        request = httpx.Request("GET", url)
        jar.set_cookie_header(request)
        return request.headers.get("Cookie")

    assert sent("https://example.org/clip/jobs/job_1/events") == f"{COOKIE}=sealed"
    assert sent("https://example.org/clip/session") == f"{COOKIE}=sealed"
    assert sent("https://example.org/other") is None
    assert sent("http://example.org/clip/jobs") is None
