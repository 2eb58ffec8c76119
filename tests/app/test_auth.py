"""Keys, scopes, and the rule that every route says who may call it."""

import hashlib
import json
import os
import stat
from pathlib import Path

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


def _bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def test_key_with_the_scope_is_let_in(path: Path) -> None:
    key = create_key(path, "phone", ["infer"])

    assert _client(path).get("/infer", headers=_bearer(key)).json() == "inferred"


def test_key_without_the_scope_is_forbidden(path: Path) -> None:
    key = create_key(path, "phone", ["infer"])

    answer = _client(path).get("/train", headers=_bearer(key))

    assert answer.status_code == 403
    assert answer.json()["error"]["code"] == "missing_scope"


@pytest.mark.parametrize(
    "headers",
    [
        {},
        _bearer(""),
        _bearer("sdsclip_wrong"),
        {"Authorization": "Basic cGhvbmU6cGhvbmU="},
        {"Authorization": "Bearer"},
        {"Authorization": b"Bearer \xff\xfe"},
    ],
    ids=["none", "empty", "wrong", "basic", "no key", "not ascii"],
)
def test_request_without_a_known_key_is_unauthorized(path: Path, headers: dict[str, str]) -> None:
    create_key(path, "phone", ["infer"])

    answer = _client(path).get("/infer", headers=headers)

    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"] == "Bearer"
    assert answer.json()["error"]["code"] == "unauthorized"


def test_hash_of_a_key_is_not_a_key(path: Path) -> None:
    key = create_key(path, "phone", ["infer"])

    answer = _client(path).get("/infer", headers=_bearer(hashlib.sha256(key.encode()).hexdigest()))

    assert answer.status_code == 401


def test_public_route_needs_no_key(path: Path) -> None:
    create_key(path, "phone", ["infer"])

    assert _client(path).get("/open").json() == "opened"


def test_without_a_keys_file_nothing_is_asked() -> None:
    assert TestClient(_app(Settings())).get("/train").json() == "trained"


def test_route_that_declares_nothing_stops_the_start() -> None:
    app = FastAPI()

    @app.get("/forgotten", dependencies=[Depends(lambda: None)])
    async def forgotten() -> None: ...

    with pytest.raises(ConfigurationError, match="/forgotten"):
        auth.assert_every_route_declares(app)


def test_undeclared_route_of_an_included_router_stops_the_start() -> None:
    app, inner, outer = FastAPI(), APIRouter(), APIRouter()

    @inner.get("/forgotten")
    async def forgotten() -> None: ...

    outer.include_router(inner, prefix="/deep")
    app.include_router(outer)

    with pytest.raises(ConfigurationError, match="/forgotten"):
        auth.assert_every_route_declares(app)


def test_mounted_app_stops_the_start() -> None:
    app = FastAPI()
    app.mount("/inside", FastAPI())

    with pytest.raises(ConfigurationError, match="/inside"):
        auth.assert_every_route_declares(app)


def test_file_holds_the_hash_and_is_for_its_owner_only(path: Path) -> None:
    key = create_key(path, "phone", ["infer", "admin"])

    assert json.loads(path.read_text()) == {
        "keys": [
            {
                "name": "phone",
                "sha256": hashlib.sha256(key.encode()).hexdigest(),
                "scopes": ["infer", "admin"],
            }
        ]
    }
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

    assert [record.levelname for record in caplog.records if record.name == "sds_clip.app.keys"] == [
        "ERROR"
    ] * 2


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1"])
def test_loopback_needs_no_keys(host: str) -> None:
    auth.check_binding(Settings(host=host))


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "", "example.org"])
def test_other_binding_without_keys_is_refused(host: str) -> None:
    with pytest.raises(ConfigurationError, match="keys"):
        auth.check_binding(Settings(host=host))


def test_other_binding_with_keys_is_allowed(path: Path) -> None:
    auth.check_binding(Settings(host="0.0.0.0", keys_file=path))
