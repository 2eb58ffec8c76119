"""Keys, scopes, and the rule that every route says who may call it."""

import hashlib
import json
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fastapi import APIRouter, Depends, FastAPI
from starlette.testclient import TestClient

from sds_clip.app import keys
from sds_clip.app.edge import auth, responses
from sds_clip.app.edge.auth import public, requires
from sds_clip.app.errors import ConfigurationError
from sds_clip.app.keys import create_key
from sds_clip.app.settings import Settings


def _app(settings: Settings) -> FastAPI:
    app = FastAPI()
    router = APIRouter(dependencies=[Depends(requires("infer"))])

    @router.get("/infer")
    async def infer() -> str:
        return "inferred"

    @app.get("/train", dependencies=[Depends(requires("train"))])
    async def train() -> str:
        return "trained"

    @app.get("/open", dependencies=[Depends(public)])
    async def open_() -> str:
        return "opened"

    app.include_router(router)
    responses.install_error_handlers(app)
    auth.install(app, settings)
    auth.assert_every_route_declares(app)
    return app


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "keys.json"


def _client(path: Path) -> TestClient:
    return TestClient(_app(Settings(keys_file=path)))


def _hash(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


def _bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


ANSWERS: dict[str, tuple[str, Callable[[str], dict[str, Any]], int, str | None]] = {
    "a key with the scope": ("/infer", _bearer, 200, None),
    "a key without the scope": ("/train", _bearer, 403, "missing_scope"),
    "no key": ("/infer", lambda key: {}, 401, "unauthorized"),
    "no key for a public route": ("/open", lambda key: {}, 200, None),
    "an empty key": ("/infer", lambda key: _bearer(""), 401, "unauthorized"),
    "a wrong key": ("/infer", lambda key: _bearer("sdsclip_wrong"), 401, "unauthorized"),
    "the hash of a key": ("/infer", lambda key: _bearer(_hash(key)), 401, "unauthorized"),
    "another scheme": (
        "/infer",
        lambda key: {"Authorization": "Basic cGhvbmU6cGhvbmU="},
        401,
        "unauthorized",
    ),
    "nothing after the scheme": ("/infer", lambda key: {"Authorization": "Bearer"}, 401, "unauthorized"),
    "not ASCII": ("/infer", lambda key: {"Authorization": b"Bearer \xff\xfe"}, 401, "unauthorized"),
}


@pytest.mark.parametrize("sent", ANSWERS)
def test_who_has_a_key_with_the_scope_is_let_in_and_nobody_else(path: Path, sent: str) -> None:
    route, headers, status, code = ANSWERS[sent]
    key = create_key(path, "phone", ["infer"])

    answer = _client(path).get(route, headers=headers(key))

    assert answer.status_code == status
    assert (answer.json()["error"]["code"] if code else None) == code
    assert answer.headers.get("WWW-Authenticate") == ("Bearer" if status == 401 else None)


def test_without_a_keys_file_nothing_is_asked() -> None:
    assert TestClient(_app(Settings())).get("/train").json() == "trained"


async def _forgotten() -> None: ...


def _plain(app: FastAPI) -> None:
    app.add_api_route("/forgotten", _forgotten, dependencies=[Depends(lambda: None)])


def _included(app: FastAPI) -> None:
    inner, outer = APIRouter(), APIRouter()
    inner.add_api_route("/forgotten", _forgotten)
    outer.include_router(inner, prefix="/deep")
    app.include_router(outer)


def _mounted(app: FastAPI) -> None:
    app.mount("/forgotten", FastAPI())


@pytest.mark.parametrize("add", [_plain, _included, _mounted])
def test_route_that_declares_nothing_stops_the_start(add: Callable[[FastAPI], None]) -> None:
    app = FastAPI()
    add(app)
    with pytest.raises(ConfigurationError, match="/forgotten"):
        auth.assert_every_route_declares(app)


def test_file_holds_the_hash_and_is_for_its_owner_only(path: Path) -> None:
    key = create_key(path, "phone", ["infer", "admin"])

    (kept,) = json.loads(path.read_text())["keys"]
    assert kept == {"name": "phone", "sha256": _hash(key), "scopes": ["infer", "admin"]}
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert os.listdir(path.parent) == ["keys.json"]


def test_key_has_32_random_bytes(path: Path) -> None:
    first, second = create_key(path, "first", ["infer"]), create_key(path, "second", ["infer"])

    assert first.startswith("sdsclip_")
    assert len(first) == len("sdsclip_") + 43
    assert first != second
    assert [key["name"] for key in json.loads(path.read_text())["keys"]] == ["first", "second"]


@pytest.mark.parametrize(
    ("name", "scopes"),
    [("phone", ["infer"]), ("", ["infer"]), ("a b", ["infer"]), ("new", ["root"]), ("new", [])],
    ids=["taken", "empty name", "space", "unknown scope", "no scope"],
)
def test_key_that_cannot_be_made_leaves_the_file_alone(path: Path, name: str, scopes: list[str]) -> None:
    create_key(path, "phone", ["infer"])
    before = path.read_bytes()

    with pytest.raises(ConfigurationError):
        create_key(path, name, scopes)

    assert path.read_bytes() == before


@pytest.mark.parametrize(
    "content", ["", "[]", '{"keys": [{"name": "a", "sha256": "secret", "scopes": ["infer"]}]}']
)
def test_broken_file_stops_the_start_without_being_quoted(path: Path, content: str) -> None:
    path.write_text(content)

    with pytest.raises(ConfigurationError) as caught:
        _client(path)

    assert "secret" not in str(caught.value)


def test_missing_file_stops_the_start(path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot be read"):
        _client(path)


def test_new_key_works_and_removed_key_stops_without_a_restart(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keys, "RECHECK_S", 0.0)
    old = create_key(path, "old", ["infer"])
    client = _client(path)
    new = create_key(path, "new", ["infer"])
    assert client.get("/infer", headers=_bearer(new)).status_code == 200

    kept = [key for key in json.loads(path.read_text())["keys"] if key["name"] == "new"]
    path.write_text(json.dumps({"keys": kept}))

    assert client.get("/infer", headers=_bearer(old)).status_code == 401
    assert client.get("/infer", headers=_bearer(new)).status_code == 200


def test_file_that_breaks_while_serving_leaves_the_old_keys_in_force(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(keys, "RECHECK_S", 0.0)
    key = create_key(path, "phone", ["infer"])
    client = _client(path)

    path.write_text("{")
    assert client.get("/infer", headers=_bearer(key)).status_code == 200
    path.unlink()
    assert client.get("/infer", headers=_bearer(key)).status_code == 200

    own = [record.levelname for record in caplog.records if record.name == "sds_clip.app.keys"]
    assert own == ["ERROR"] * 2


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1"])
def test_loopback_needs_no_keys(host: str) -> None:
    auth.check_binding(Settings(host=host))


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "", "example.org"])
def test_other_binding_without_keys_is_refused(host: str) -> None:
    with pytest.raises(ConfigurationError, match="keys"):
        auth.check_binding(Settings(host=host))


def test_other_binding_with_keys_is_allowed(path: Path) -> None:
    auth.check_binding(Settings(host="0.0.0.0", keys_file=path))
