"""What a browser's session allows: what its key does, and nothing to pages of other origins."""

import threading
from collections.abc import Callable
from itertools import product
from typing import cast

import pytest
from fastapi import FastAPI

from sds_clip.app.edge import auth
from sds_clip.app.edge.session import COOKIE
from tests.app.datasets.archives import tar_of
from tests.app.jobs.conftest import error_of
from tests.app.jobs.consoles import SCOPES, Console
from tests.app.serving.swapping import MATCH
from tests.databases import held
from tests.worker.waiting import until

ORIGIN = "http://localhost"
FOREIGN = "https://elsewhere.example"
STREAM = {"Accept": "text/event-stream"}
NO_STREAM = {"Last-Event-ID": "wrong"}
"""For this, a key that is let in gets an error in place of a stream without an end."""


# What a session allows


def test_session_allows_on_every_route_what_its_key_allows(console: Console) -> None:
    asked, refused = 0, 0
    for path, methods, scopes in auth.declared(cast(FastAPI, console.service.client.app)):
        if scopes:
            for name in SCOPES:
                signed = console.sign_in(name)
                for method in methods:
                    url = path.replace("{", "").replace("}", "")
                    by_key = signed.bearer(method, url, headers=NO_STREAM)
                    by_cookie = signed.ask(method, url, headers={**signed.csrf, **NO_STREAM})
                    assert by_cookie.status_code == by_key.status_code, (method, path, name)
                    assert (by_key.status_code == 403) == set(scopes).isdisjoint(SCOPES[name]), (method, path)
                    asked, refused = asked + 1, refused + (by_key.status_code == 403)
    assert asked > 4 * 25
    assert refused > 25


def test_every_change_in_a_session_needs_its_token(console: Console) -> None:
    signed, other = console.sign_in(), console.sign_in()
    wrong: list[dict[str, str]] = [{}, {"X-CSRF-Token": ""}, {"X-CSRF-Token": "é"}, other.csrf]
    asked = 0

    for path, methods, scopes in auth.declared(cast(FastAPI, console.service.client.app)):
        for method in methods - {"GET", "HEAD", "OPTIONS"} if scopes else ():
            for headers in wrong:
                encoded = {name: value.encode() for name, value in headers.items()}
                url = path.replace("{", "").replace("}", "")
                answer = signed.ask(method, url, headers=encoded)
                assert answer.status_code == 403, (method, path)
                assert '"code": "wrong_csrf_token"' in answer.text, (method, path)
                asked += 1
    assert asked >= 4 * 15


def test_upload_in_a_session(console: Console) -> None:
    signed = console.sign_in("train")
    upload = {"data": {"format": "winoground"}, "files": {"file": ("a.tar", tar_of({"a.txt": b"a"}))}}

    error_of(signed.ask("POST", "/datasets", **upload), 403)
    answer = signed.ask("POST", "/datasets", headers=signed.csrf, **upload)
    assert answer.status_code == 202, answer.text
    assert console.service.store.datasets.get(answer.json()["id"]).owner == "train"


def test_authorization_wins_over_the_cookie(console: Console) -> None:
    signed = console.sign_in("all")
    wrong, other = ({"Authorization": f"Bearer {key}"} for key in ("sdsclip_wrong", console.keys["infer"]))

    assert error_of(signed.ask("GET", "/jobs", headers=wrong), 401)["code"] == "unauthorized"
    assert error_of(signed.ask("GET", "/jobs", headers=other), 403)["code"] == "missing_scope"
    assert signed.ask("POST", "/match", json=MATCH, headers=other).status_code == 200
    assert signed.ask("GET", "/session", headers=other).json()["key"]["name"] == "infer"
    assert signed.ask("GET", "/session", headers={"Authorization": ""}).json()["signed_in"] is False


def test_first_of_two_cookies_counts_which_has_the_longest_path(console: Console) -> None:
    signed = console.sign_in("all")
    mine, garbage = f"{COOKIE}={signed.set_cookie.value}", f"{COOKIE}=garbage"

    assert signed.ask("GET", "/jobs", headers={"Cookie": f"a=b; {mine}; {garbage}"}).status_code == 200
    assert signed.ask("GET", "/jobs", headers={"Cookie": f"{garbage}; {mine}"}).status_code == 401


def test_session_counts_towards_the_limits_of_its_key(
    make_console: Callable[..., Console], database_url: str
) -> None:
    console = make_console(max_requests_per_key=1, store_timeout_s=30)
    signed = console.sign_in("train")
    other = console.sign_in("admin")

    def ask_until_let_in() -> None:
        until(lambda: signed.ask("GET", "/jobs").status_code != 429)

    waiting = threading.Thread(target=ask_until_let_in)
    with held(database_url):
        waiting.start()
        until(lambda: signed.bearer("GET", "/session").status_code == 429)
        assert "max_requests_per_key" in error_of(signed.ask("GET", "/jobs"), 429)["message"]
        assert other.ask("GET", "/session").status_code == 200
    waiting.join()


# Pages of other origins


@pytest.mark.parametrize("allowed", [[], [FOREIGN, "http://localhost:3000"], ["*"]])
def test_page_of_another_origin_cannot_use_a_session(
    make_console: Callable[..., Console], allowed: list[str]
) -> None:
    console = make_console(cors_origins=allowed)
    signed, job = console.sign_in(), console.job()
    foreign = [
        {"Origin": FOREIGN},
        {"Origin": "null"},
        {"Origin": "http://localhost:3000"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Origin": ORIGIN, "Sec-Fetch-Site": "cross-site"},
    ]
    asks: list[tuple[str, str, dict[str, str]]] = [
        ("GET", "/jobs", {}),
        ("GET", f"/jobs/{job}/events", STREAM),
        ("GET", "/session", {}),
        ("DELETE", "/session", signed.csrf),
        ("POST", f"/jobs/{job}/cancel", signed.csrf),
    ]

    for headers, (method, path, more) in product(foreign, asks):
        answer = signed.ask(method, path, headers={**headers, **more})
        assert error_of(answer, 403)["code"] == "foreign_origin", (method, path, headers)
        assert "Access-Control-Allow-Credentials" not in answer.headers
    for headers in foreign:
        answer = console.service.client.post("/session", json={"key": signed.key}, headers=headers)
        assert error_of(answer, 403)["code"] == "foreign_origin", headers
        assert "Set-Cookie" not in answer.headers


@pytest.mark.parametrize("allowed", [[FOREIGN], ["*"]])
def test_other_origins_may_send_keys_but_no_credentials(
    make_console: Callable[..., Console], allowed: list[str]
) -> None:
    console = make_console(cors_origins=allowed)
    signed = console.sign_in()
    asks = {"Access-Control-Request-Method": "GET", "Access-Control-Request-Headers": "authorization"}

    answers = [
        signed.bearer("GET", "/jobs", headers={"Origin": FOREIGN}),
        console.service.client.options("/jobs", headers={"Origin": FOREIGN, **asks}),
        signed.ask("GET", "/health", headers={"Origin": FOREIGN}),
    ]
    for answer in answers:
        assert answer.status_code == 200
        assert answer.headers["Access-Control-Allow-Origin"] in ("*", FOREIGN)
        assert "Access-Control-Allow-Credentials" not in answer.headers


def test_own_page_may_use_a_session(console: Console) -> None:
    own: list[dict[str, str]] = [
        {},
        {"Origin": ORIGIN},
        {"Origin": ORIGIN, "Sec-Fetch-Site": "same-origin"},
        {"Sec-Fetch-Site": "none"},
        {"Host": "clip.example.org", "Origin": "https://clip.example.org", "Sec-Fetch-Site": "same-origin"},
    ]
    for headers in own:
        signed = console.sign_in("train", **headers)
        assert signed.ask("GET", "/session", headers=headers).json() == signed.body
        cancel = f"/jobs/{console.job('train')}/cancel"
        assert signed.ask("POST", cancel, headers={**headers, **signed.csrf}).status_code == 200
