"""A browser signs in to the whole service and out, and its session ends with its time and its key."""

import hashlib
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest
from httpx import Response

from sds_clip.app.edge.key_uses import FOLDER, last_used
from sds_clip.app.edge.session import COOKIE, Sessions
from sds_clip.app.keys import KeysFile, create_key, delete_key, read_keys
from sds_clip.app.routes import session as routes
from tests.app.jobs.conftest import Service, error_of
from tests.app.jobs.consoles import Console, cookie_of, is_cleared
from tests.app.serverside import running_server
from tests.worker.waiting import until

STREAM = {"Accept": "text/event-stream"}
NOBODY = {
    "object": "session", "needs_key": True, "signed_in": False, "key": None, "csrf_token": None, "expires_at": None,
}  # fmt: skip
"""What a browser is told that has not signed in."""


# Sign in and out


def test_sign_in_sets_a_cookie_that_stands_for_the_key(console: Console) -> None:
    signed = console.sign_in("train")

    own = {name: signed.body[name] for name in ("csrf_token", "expires_at")}
    assert signed.body == NOBODY | own | {"signed_in": True, "key": {"name": "train", "scopes": ["train"]}}
    assert None not in own.values()
    assert signed.set_cookie["httponly"] is True
    assert signed.set_cookie["samesite"] == "Strict"
    assert signed.set_cookie["max-age"] == str(12 * 3600)
    assert [signed.set_cookie[name] for name in ("secure", "domain", "path")] == [""] * 3
    assert signed.ask("GET", "/session").json() == signed.body
    assert signed.ask("GET", "/jobs").status_code == 200


def test_cookie_is_secure_over_https(console: Console) -> None:
    client, url = console.service.client, "https://localhost/session"
    answer = client.post(url, json={"key": console.keys["all"]})

    assert cookie_of(answer)["secure"] is True
    client.cookies.clear()
    assert is_cleared(client.get(url, headers={"Cookie": f"{COOKIE}=x"}))


def test_wrong_key_is_refused_and_sets_no_cookie(console: Console) -> None:
    answer = console.service.client.post("/session", json={"key": "sdsclip_wrong"})

    error = error_of(answer, 401)
    assert (error["code"], error["param"]) == ("unauthorized", "key")
    assert "Set-Cookie" not in answer.headers


def test_body_that_is_no_key_is_refused(console: Console) -> None:
    client, headers = console.service.client, {"Content-Type": "application/json"}

    for body, status in (
        (b"", 400), (b"{", 400), (b"{}", 422), (b'{"key": 1}', 422), (b'{"key": "a", "b": 1}', 422),
    ):  # fmt: skip
        error_of(client.post("/session", content=body, headers=headers), status)
    error_of(client.post("/session", data={"key": console.keys["all"]}), 415)
    error_of(client.post("/session", json={"key": "x" * routes.MAX_BODY_BYTES}), 413)


def test_without_a_cookie_nobody_is_signed_in(console: Console) -> None:
    answer = console.service.client.get("/session")

    assert answer.json() == NOBODY
    assert answer.headers["Cache-Control"] == "no-store"
    assert "Set-Cookie" not in answer.headers


def test_script_sees_what_its_key_allows(console: Console) -> None:
    headers = {"Authorization": f"Bearer {console.keys['infer']}"}

    body = console.service.client.get("/session", headers=headers).json()
    assert (body["signed_in"], body["key"]) == (True, {"name": "infer", "scopes": ["infer"]})
    assert (body["csrf_token"], body["expires_at"]) == (None, None)


def test_sign_out_clears_the_cookie_and_needs_the_token(console: Console) -> None:
    signed = console.sign_in()

    assert error_of(signed.ask("DELETE", "/session"), 403)["code"] == "wrong_csrf_token"
    answer = signed.ask("DELETE", "/session", headers=signed.csrf)
    assert is_cleared(answer)
    assert (answer.json()["signed_in"], answer.json()["csrf_token"]) == (False, None)


def test_sign_out_everywhere_ends_all_sessions_of_the_key_and_no_other(console: Console) -> None:
    here, copied, other = console.sign_in(), console.sign_in(), console.sign_in("train")

    assert error_of(here.ask("DELETE", "/session?everywhere=true"), 403)["code"] == "wrong_csrf_token"
    assert copied.ask("GET", "/jobs").status_code == 200
    answer = here.ask("DELETE", "/session?everywhere=true", headers=here.csrf)
    assert is_cleared(answer)
    assert answer.json()["signed_in"] is False
    for signed in (here, copied):
        assert error_of(signed.ask("GET", "/jobs"), 401)["code"] == "session_ended"
    assert other.ask("GET", "/jobs").status_code == 200
    again = console.sign_in()
    assert again.ask("GET", "/jobs").status_code == 200
    assert again.bearer("DELETE", "/session?everywhere=true").status_code == 200
    error_of(again.ask("GET", "/jobs"), 401)
    assert again.bearer("GET", "/jobs").status_code == 200


def test_sign_out_everywhere_needs_a_key_or_a_session_that_holds(console: Console) -> None:
    signed = console.sign_in()
    signed.ask("DELETE", "/session?everywhere=true", headers=signed.csrf)
    again = signed.ask("DELETE", "/session?everywhere=true", headers=signed.csrf)
    assert error_of(again, 401)["code"] == "session_ended"
    unknown = console.service.client.delete("/session?everywhere=true")
    assert error_of(unknown, 401)["code"] == "unauthorized"


def test_expired_key_is_refused_and_only_its_holder_is_told(console: Console) -> None:
    signed = console.sign_in("train")
    keys = read_keys(console.keys_file)
    past = datetime(2026, 1, 31, tzinfo=UTC)
    expired = [key.model_copy(update={"expires_at": past}) if key.name == "train" else key for key in keys]
    console.keys_file.write_text(KeysFile(keys=expired).model_dump_json())

    error = error_of(signed.bearer("GET", "/jobs"), 401)
    assert error["code"] == "key_expired"
    assert "2026-01-31T00:00:00" in error["message"]
    assert error_of(signed.ask("GET", "/jobs"), 401)["code"] == "session_ended"
    signing_in = console.service.client.post("/session", json={"key": signed.key})
    assert error_of(signing_in, 401)["code"] == "key_expired"
    digest = hashlib.sha256(signed.key.encode()).hexdigest()
    for other in ("train", digest, signed.key[:-1]):
        answer = console.service.client.get("/jobs", headers={"Authorization": f"Bearer {other}"})
        assert error_of(answer, 401)["code"] == "unauthorized"
    assert console.sign_in("all").bearer("GET", "/jobs").status_code == 200


def test_use_of_a_key_or_its_session_is_noted(console: Console) -> None:
    folder = console.service.settings.data_dir / FOLDER
    keys = {key.name: key.sha256 for key in read_keys(console.keys_file)}
    console.service.client.get("/jobs", headers={"Authorization": f"Bearer {console.keys['infer']}"})
    until(lambda: last_used(folder, keys["infer"]) is not None)
    assert last_used(folder, keys["train"]) is None
    console.sign_in("train").ask("GET", "/jobs")
    until(lambda: last_used(folder, keys["train"]) is not None)


def test_sign_out_without_a_session_is_no_error(console: Console) -> None:
    answer = console.service.client.delete("/session")

    assert is_cleared(answer)
    assert answer.json()["signed_in"] is False


def test_service_without_keys_signs_nobody_in_and_allows_everything(service: Service) -> None:
    no_keys = NOBODY | {"needs_key": False, "signed_in": True}
    cookie = {"Cookie": f"{COOKIE}=x"}

    for answer in (
        service.client.get("/session"),
        service.client.get("/session", headers=cookie),
        service.client.post("/session", json={"key": "anything"}),
        service.client.delete("/session"),
    ):
        assert answer.json() == no_keys
        assert "Set-Cookie" not in answer.headers
    assert service.client.get("/jobs", headers=cookie).status_code == 200
    assert not (service.settings.data_dir / "session.key").exists()


# The end of a session


def test_session_of_a_deleted_key_ends_at_once(console: Console) -> None:
    signed = console.sign_in("train")
    delete_key(console.keys_file, "train")

    error = error_of(signed.ask("GET", "/jobs"), 401)
    assert error["code"] == "session_ended"
    assert "sign in again" in error["message"]
    answer = signed.ask("GET", "/session")
    assert (answer.json()["signed_in"], answer.json()["csrf_token"]) == (False, None)
    assert is_cleared(answer)


def test_changed_scope_counts_at_once(console: Console) -> None:
    signed = console.sign_in("train")
    file = console.keys_file
    file.write_text(file.read_text().replace('"train"\n', '"infer"\n', 1))

    assert error_of(signed.ask("GET", "/jobs"), 403)["code"] == "missing_scope"
    assert signed.ask("GET", "/session").json()["key"] == {"name": "train", "scopes": ["infer"]}


def test_new_key_of_the_same_name_does_not_revive_a_session(console: Console) -> None:
    signed = console.sign_in("train")
    delete_key(console.keys_file, "train")
    create_key(console.keys_file, "train", ["train"])

    error_of(signed.ask("GET", "/jobs"), 401)


def test_session_expires_on_the_server(make_console: Callable[..., Console]) -> None:
    console, now = make_console(session_hours=0.5), [1_800_000_000.0]
    secret = console.service.settings.data_dir / "session.key"
    lifetime_s = console.state.sessions.lifetime_s
    console.state.sessions = Sessions(secret, lifetime_s=lifetime_s, clock=lambda: now[0])
    signed = console.sign_in()
    assert signed.set_cookie["max-age"] == "1800"
    assert signed.body["expires_at"] == now[0] + 1800

    now[0] += 1800
    assert signed.ask("GET", "/jobs").status_code == 200
    now[0] += 1
    assert error_of(signed.ask("GET", "/jobs"), 401)["code"] == "session_ended"
    assert is_cleared(signed.ask("GET", "/session"))


@pytest.mark.parametrize("end", ["expiry", "deleted key", "expired key", "sign-out everywhere"])
def test_stream_ends_with_its_session(console: Console, end: str) -> None:
    now = [1_800_000_000.0]
    secret = console.service.settings.data_dir / "session.key"
    console.state.sessions = Sessions(secret, lifetime_s=3600, clock=lambda: now[0])
    signed, job, answers = console.sign_in(), console.job(), list[Response]()
    path = f"/jobs/{job}/events"
    stream = threading.Thread(target=lambda: answers.append(signed.ask("GET", path, headers=STREAM)))
    stream.start()
    until(lambda: console.state.backend.streams.used == 1)

    if end == "expiry":
        now[0] += 3601
    elif end == "deleted key":
        delete_key(console.keys_file, "all")
    elif end == "expired key":
        (key,) = [key for key in read_keys(console.keys_file) if key.name == "all"]
        gone = key.model_copy(update={"expires_at": datetime(2026, 1, 31, tzinfo=UTC)})
        console.keys_file.write_text(KeysFile(keys=[gone]).model_dump_json())
    else:
        signed.ask("DELETE", "/session?everywhere=true", headers=signed.csrf)
    stream.join()
    assert answers[0].status_code == 200
    assert "event: done" not in answers[0].text
    error_of(signed.ask("GET", path, headers=STREAM), 401)


def test_refusal_names_no_cookie_token_or_key(console: Console, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    signed = console.sign_in()
    answers = [
        signed.ask("DELETE", "/session"),
        signed.ask("GET", "/jobs", headers={"Origin": "https://elsewhere.example"}),
        signed.ask("GET", "/jobs"),
        signed.ask("DELETE", "/session", headers=signed.csrf),
    ]
    for secret in (signed.key, signed.set_cookie.value, signed.body["csrf_token"]):
        assert all(secret not in answer.text for answer in answers)
        assert secret not in caplog.text
    assert signed.key not in str(signed.body)


@pytest.mark.long
def test_processes_share_sessions_and_log_no_secret(small_reference: str, tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    key = create_key(file, "phone", ["infer"])
    shared = {"SDS_CLIP_KEYS_FILE": str(file), "SDS_CLIP_DATA_DIR": str(tmp_path / "data")}
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
    with (
        running_server(tmp_path / "first", "--model", small_reference, **shared) as first,
        running_server(tmp_path / "second", "--model", small_reference, **shared) as second,
    ):
        https = {"X-Forwarded-Proto": "https"}  # from this machine, which is trusted
        answer = httpx.post(f"{first.url}/session", json={"key": key}, headers=https)
        assert cookie_of(answer)["secure"] is True
        session = {"Cookie": f"{COOKIE}={cookie_of(answer).value}"}
        assert httpx.post(f"{first.url}/session", json={"key": f"{key}x"}).status_code == 401
        for server in (second, first):
            assert httpx.get(f"{server.url}/models", headers=session).status_code == 200
            assert httpx.delete(f"{server.url}/session", headers=session).status_code == 403

        delete_key(file, "phone")
        for server in (second, first):
            until(lambda url=server.url: httpx.get(f"{url}/models", headers=session).status_code == 401)  # type: ignore[misc]
        logged = first.log.read_text() + second.log.read_text()
    for secret in (key, cookie_of(answer).value, answer.json()["csrf_token"]):
        assert secret not in logged
    assert "wrong_csrf_token" in logged
