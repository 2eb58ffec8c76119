"""Sessions in the console: what a key of each scope sees and may do, and how a session ends."""

import hashlib
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import APIResponse, Page, expect

from sds_clip.app.edge.session import COOKIE, SECRET_FILE, Sessions
from sds_clip.app.keys import create_key, delete_key
from tests.app.conftest import base64_of, png
from tests.app.jobs.consoles import SCOPES
from tests.app.serverside import running_server
from tests.browser.console import NEEDS_CONSOLE, Look, go_to, match, sign_in
from tests.browser.registry import Registry, add_data
from tests.worker.waiting import until

pytestmark = NEEDS_CONSOLE

NEEDED = {
    "Try": "infer",
    "Jobs": "train",
    "New job": "train",
    "Data": "train",
    "Results": "train",
    "Versions": "infer",
}
"""The scope that each page needs. Service is for everybody."""
MATCH = {"images": [base64_of(png())], "texts": ["a red circle"]}


@dataclass
class Keyed:
    """A service with keys, and a version that the key `all` owns."""

    url: str
    folder: Path
    keys: dict[str, str]
    registry: Registry
    version: str

    @property
    def keys_file(self) -> Path:
        return self.folder / "keys.json"

    def hand(self, page: Page, method: str, path: str, **request: Any) -> APIResponse:
        """Send a request with the cookie and the token of the page's session, but without the page."""
        token = page.request.get(f"{self.url}/session").json()["csrf_token"]
        headers = {"X-CSRF-Token": token} if token else {}
        return page.request.fetch(f"{self.url}{path}", method=method, headers=headers, **request)


@pytest.fixture(scope="module")
def keyed(models: list[str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Keyed]:
    folder = tmp_path_factory.mktemp("keyed")
    keys = {name: create_key(folder / "keys.json", name, scopes) for name, scopes in SCOPES.items()}
    settings = {
        "SDS_CLIP_DATABASE_URL": f"sqlite:///{folder}/jobs.db",
        "SDS_CLIP_KEYS_FILE": str(folder / "keys.json"),
    }
    with ExitStack() as stack:
        server = stack.enter_context(running_server(folder, "--model", models[0], **settings))
        bearer = {"Authorization": f"Bearer {keys['all']}"}
        registry = stack.enter_context(Registry(server.url, folder, models[0], bearer))
        yield Keyed(server.url, folder, keys, registry, registry.make(1, owner="all"))


def code_of(answer: APIResponse) -> str:
    return str(answer.json()["error"]["code"])


@pytest.mark.parametrize("name", SCOPES)
def test_key_sees_the_pages_that_its_scopes_allow(look: Look, keyed: Keyed, name: str) -> None:
    page = look(keyed.url, "service")
    sign_in(page, keyed.keys[name])
    workers, served = (page.get_by_role("region", name=title) for title in ("Workers", "Versions served"))
    for section, scope in ((workers, "train"), (served, "infer")):
        lacks = section.get_by_text(f"It lacks the scope {scope}.")
        expect(lacks).to_have_count(int(scope not in SCOPES[name]))

    for title, scope in NEEDED.items():
        go_to(page, title)
        lacks = page.get_by_text(f"It lacks the scope {scope}.")
        expect(lacks).to_have_count(int(scope not in SCOPES[name]))
        if scope in SCOPES[name]:
            expect(page.get_by_role("alert")).to_have_count(0)
    expect(page.get_by_role("button", name="Sign out", exact=True)).to_have_attribute(
        "title", f"Signed in with the key {name}"
    )


@pytest.mark.parametrize("name", ["infer", "train", "admin"])
def test_session_may_send_by_hand_what_its_key_may(look: Look, keyed: Keyed, name: str) -> None:
    page = look(keyed.url, "service")
    sign_in(page, keyed.keys[name])
    expect(page.get_by_role("button", name="Sign out", exact=True)).to_be_visible()
    data = add_data(keyed.registry.store, owner=name)
    training = {"training_data": data, "teacher": "demo", "hyperparameters": {"steps": 10}}
    before = keyed.registry.audit()

    for scope, path, body in (
        ("infer", "/match", MATCH),
        ("train", "/finetune", training | {"dry_run": True}),
        ("admin", f"/models/{keyed.version}/promote", {"alias": f"of-{name}", "reason": "by hand"}),
        ("admin", "/models/default/lock", {"reason": "by hand"}),
        ("admin", "/models/default/unlock", {"reason": "by hand"}),
    ):
        answer = keyed.hand(page, "POST", path, data=body)
        assert answer.status == (200 if scope == name else 403), (path, answer.text())
        without_token = page.request.post(f"{keyed.url}{path}", data=body)
        assert code_of(without_token) == "wrong_csrf_token", path
    done = [(action, "by hand") for action in ("unlock", "lock", "promote")] if name == "admin" else []
    assert keyed.registry.audit() == done + before


def test_key_that_may_only_infer_sees_versions_and_moves_none(look: Look, keyed: Keyed) -> None:
    page = look(keyed.url, "versions")
    sign_in(page, keyed.keys["infer"])
    aliases = page.get_by_role("region", name="Aliases and where they point")
    expect(aliases).to_contain_text("default")
    expect(aliases.get_by_role("button")).to_have_count(0)
    page.goto(f"{keyed.url}/#/versions/default")
    expect(page.get_by_role("button", name="Promote…")).to_be_disabled()
    expect(page.get_by_text("Promoting needs a key with the scope admin.")).to_be_visible()
    expect(page.get_by_role("button", name="Delete…")).to_be_disabled()
    expect(page.get_by_role("link", name="Download")).to_have_count(0)

    served = keyed.registry.served()
    for method, path in (
        ("POST", f"/models/{keyed.version}/promote"),
        ("POST", "/models/default/rollback"),
        ("GET", f"/models/{keyed.version}/download"),
        ("DELETE", f"/models/{keyed.version}"),
    ):
        assert code_of(keyed.hand(page, method, path)) == "missing_scope", path
    assert keyed.registry.served() == served


def test_key_that_may_train_neither_sees_nor_stops_a_job_of_another(look: Look, keyed: Keyed) -> None:
    (other,) = keyed.registry.client.get("/jobs?limit=1").json()["data"]
    page = look(keyed.url, f"jobs/{other['id']}", expected="status of 404")
    sign_in(page, keyed.keys["train"])
    expect(page.get_by_role("alert")).to_contain_text("There is no job with this id")
    go_to(page, "Jobs")
    expect(page.get_by_role("link", name=other["id"])).to_have_count(0)
    assert keyed.hand(page, "POST", f"/jobs/{other['id']}/cancel").status == 404


def test_key_signs_in_until_it_signs_out_or_is_deleted(look: Look, keyed: Keyed) -> None:
    key = create_key(keyed.keys_file, "phone", ["infer", "train"])
    page = look(keyed.url, "jobs", expected="status of 401")
    sign_in(page, key[:-1] + "x")
    expect(page.get_by_role("alert")).to_contain_text("no such API key")
    sign_in(page, key)
    expect(page.get_by_role("heading", level=1)).to_have_text("Jobs")
    assert key not in str(page.context.cookies()) + page.evaluate("JSON.stringify({...localStorage})")
    assert page.evaluate("document.cookie") == ""

    page.get_by_role("button", name="Sign out", exact=True).click()
    expect(page.get_by_label("API key")).to_be_visible()
    assert page.context.cookies() == []
    assert keyed.hand(page, "GET", "/models").status == 401
    page.get_by_role("link", name="Try", exact=True).click()
    sign_in(page, key)
    expect(page.get_by_role("heading", level=1)).to_have_text("Try")

    (cookie,) = page.context.cookies()
    page.get_by_role("button", name="Sign out everywhere").click()
    expect(page.get_by_label("API key")).to_be_visible()
    copied = page.request.get(f"{keyed.url}/models", headers={"Cookie": f"{COOKIE}={cookie['value']}"})
    assert code_of(copied) == "session_ended"
    sign_in(page, key)
    expect(page.get_by_role("heading", level=1)).to_have_text("Try")

    delete_key(keyed.keys_file, "phone")
    until(lambda: keyed.hand(page, "GET", "/models").status == 401)
    page.reload()
    expect(page.get_by_label("API key")).to_be_visible()


def test_expired_session_asks_for_the_key_and_goes_on_where_it_was(
    look: Look, keyed: Keyed, tmp_path: Path
) -> None:
    picture = tmp_path / "picture.png"
    picture.write_bytes(png())
    page = look(keyed.url, "try", expected="status of 401")
    sign_in(page, keyed.keys["infer"])
    match(page, [picture], ["a red circle"])
    expire(page, keyed, "infer")
    page.get_by_role("button", name="Match", exact=True).click()
    expect(page.get_by_label("API key")).to_be_visible()
    assert code_of(page.request.post(f"{keyed.url}/match", data=MATCH)) == "session_ended"

    sign_in(page, keyed.keys["infer"])
    expect(page.get_by_role("textbox", name="Texts")).to_have_value("a red circle")
    with page.expect_response("**/match") as answered:
        page.get_by_role("button", name="Match", exact=True).click()
    assert answered.value.status == 200


def expire(page: Page, keyed: Keyed, name: str) -> None:
    """Give the browser the cookie of a session that began a day ago."""
    sessions = Sessions(
        keyed.folder / "data" / SECRET_FILE, lifetime_s=1, clock=lambda: time.time() - 24 * 3600
    )
    cookie, _ = sessions.start(hashlib.sha256(keyed.keys[name].encode()).hexdigest())
    page.context.add_cookies([{"name": COOKIE, "value": cookie, "url": keyed.url}])
