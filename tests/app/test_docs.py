"""The page /docs, without a browser: it names only files of this service, under a policy that allows no others."""

import re
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from sds_clip.app.keys import create_key
from sds_clip.app.main import create_app
from sds_clip.app.settings import Settings
from sds_clip.models.clip.model import Clip


def test_the_page_names_only_files_of_this_service(client: TestClient) -> None:
    page = client.get("/docs")
    script = client.get("/docs/start.js")
    named = re.findall(r'(?:src|href)="([^"]+)"', page.text) + re.findall(r'url: "([^"]+)"', script.text)
    files = [address for address in named if address != "data:,"]
    assert {"docs/swagger-ui.css", "docs/swagger-ui-bundle.js", "docs/start.js", "openapi.json"} == set(files)
    for address in files:
        answer = client.get(f"/{address}")
        assert answer.status_code == 200, address
        assert len(answer.content) > 100


def test_the_page_may_load_and_call_nothing_but_this_service(client: TestClient) -> None:
    page = client.get("/docs")
    policy = dict(rule.split(" ", 1) for rule in page.headers["content-security-policy"].split("; "))
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == policy["connect-src"] == "'self'"
    assert "//" not in page.headers["content-security-policy"]
    assert re.findall(r"<script(?![^>]* src=)|<style| style=| on\w+=", page.text) == []


def test_the_description_is_written_once_and_off_the_event_loop(
    settings: Settings, small_member: Clip, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[str] = []
    app = create_app(settings, {"small": small_member})
    describe = app.openapi

    def openapi() -> dict[str, object]:
        written.append(threading.current_thread().name)
        return describe()

    monkeypatch.setattr(app, "openapi", openapi)
    with TestClient(app, base_url="http://localhost") as client, ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(client.get, ["/openapi.json"] * 24))
    assert len({answer.content for answer in answers}) == 1
    assert answers[0].json() == describe()
    assert written == ["describe API"]


@pytest.mark.parametrize("name", ["nothing.js", "redoc.standalone.js", "..%2F__init__.py", "%00"])
def test_there_are_no_other_files_below_the_page(client: TestClient, name: str) -> None:
    answer = client.get(f"/docs/{name}")
    assert answer.status_code == 404
    assert answer.json()["error"]["code"] == "not_found"


def test_the_page_needs_no_key(settings: Settings, small_clip: Clip, tmp_path: Path) -> None:
    create_key(tmp_path / "keys.json", "phone", ["infer"])
    app = create_app(settings.model_copy(update={"keys_file": tmp_path / "keys.json"}), {"small": small_clip})
    with TestClient(app) as client:
        assert [
            client.get(path).status_code for path in ("/docs", "/docs/start.js", "/docs/swagger-ui.css")
        ] == [200] * 3
