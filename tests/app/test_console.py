"""The routes of the console, over a folder as `make console` fills it."""

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from sds_clip.app.keys import create_key
from sds_clip.app.main import create_app
from sds_clip.app.routes import console
from sds_clip.app.settings import Settings
from sds_clip.models.clip.model import Clip
from tests.app.conftest import serving

POLICY = {
    "default-src": "'none'",
    "script-src": "'self'",
    "style-src": "'self'",
    "font-src": "'self'",
    "img-src": "'self' blob: data:",
    "connect-src": "'self'",
    "base-uri": "'none'",
    "form-action": "'none'",
    "frame-ancestors": "'none'",
}
ASSETS = {
    "index-a1.js": "text/javascript; charset=utf-8",
    "index-b2.css": "text/css; charset=utf-8",
    "inter-c3.woff2": "font/woff2",
}


@pytest.fixture
def built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "console"
    (folder / "assets").mkdir(parents=True)
    (folder / "index.html").write_text("<!doctype html><title>SDS-CLIP</title>")
    (folder / "secret.txt").write_text("not an asset")
    for name in ASSETS:
        (folder / "assets" / name).write_text(name)
    monkeypatch.setattr(console, "FOLDER", folder)
    return folder


@pytest.fixture
def client(built: Path, settings: Settings, small_clip: Clip) -> Iterator[TestClient]:
    with serving(settings, small_clip) as client:
        yield client


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_page_is_asked_for_anew_and_may_load_and_call_nothing_but_this_service(
    client: TestClient, method: str
) -> None:
    answer = client.request(method, "/")

    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert answer.headers["cache-control"] == "no-cache"
    policy = answer.headers["content-security-policy"].split("; ")
    assert dict(rule.split(" ", 1) for rule in policy) == POLICY
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert ("SDS-CLIP" in answer.text) == (method == "GET")


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("name", ASSETS)
def test_asset_has_its_type_and_is_kept_for_good(client: TestClient, method: str, name: str) -> None:
    answer = client.request(method, f"/assets/{name}")

    assert answer.status_code == 200
    assert answer.headers["content-type"] == ASSETS[name]
    assert answer.headers["cache-control"] == "public, max-age=31536000, immutable"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.text == (name if method == "GET" else "")


@pytest.mark.parametrize(
    "name", ["index-zz.js", "..%2Fsecret.txt", "%2e%2e%2fsecret.txt", "%00", "..%5Csecret.txt"]
)
def test_there_are_no_other_assets(client: TestClient, name: str) -> None:
    answer = client.get(f"/assets/{name}")

    assert answer.status_code == 404
    assert answer.json()["error"]["code"] == "not_found"


def test_page_that_is_not_built_says_how_to_build_it_and_so_does_the_log(
    built: Path, settings: Settings, small_clip: Clip, caplog: pytest.LogCaptureFixture
) -> None:
    (built / "index.html").unlink()
    with caplog.at_level(logging.WARNING, "sds_clip.app.routes.console"):
        app = create_app(settings, {"small": small_clip})
    with TestClient(app, base_url="http://localhost") as client:
        page, ready = client.get("/"), client.get("/ready")

    assert (page.status_code, ready.status_code) == (404, 200)
    assert page.headers["content-type"] == "text/plain; charset=utf-8"
    assert "make console" in page.text
    (record,) = [record for record in caplog.records if record.name == "sds_clip.app.routes.console"]
    assert "make console" in record.getMessage()


def test_console_that_is_off_is_not_there(built: Path, settings: Settings, small_clip: Clip) -> None:
    app = create_app(settings.model_copy(update={"console": False}), {"small": small_clip})
    with TestClient(app, base_url="http://localhost") as client:
        answers = [client.get("/"), client.get("/assets/index-a1.js")]

    assert [answer.status_code for answer in answers] == [404, 404]
    assert "SDS_CLIP_CONSOLE" in answers[0].json()["error"]["message"]


def test_page_needs_no_key(built: Path, settings: Settings, small_clip: Clip, tmp_path: Path) -> None:
    create_key(tmp_path / "keys.json", "phone", ["infer"])
    app = create_app(settings.model_copy(update={"keys_file": tmp_path / "keys.json"}), {"small": small_clip})
    with TestClient(app) as client:
        assert [client.get(path).status_code for path in ("/", "/assets/index-a1.js")] == [200, 200]
