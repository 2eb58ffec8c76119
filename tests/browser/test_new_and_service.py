"""The console's pages New job and Service in a real Chromium, against a real service."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from app.store import Store
from tests.app.conftest import png
from tests.app.serverside import RunningServer, running_server
from tests.browser.chromium import ATTACK, NEEDS_CONSOLE, WATCH
from tests.checkpoints import save_tiny_clip

pytestmark = NEEDS_CONSOLE
TIMEOUT_MS = 180_000
Open = Callable[..., Page]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    folder = tmp_path_factory.mktemp("server")
    model = f"local-dir:{save_tiny_clip(folder / 'model')}"
    url = f"sqlite:///{folder}/jobs.db"
    with running_server(folder, "--model", model, SDS_CLIP_DATABASE_URL=url) as server:
        store = Store(url)
        for name, format in (("pairs", "pairs"), ("benchmark", "winoground")):
            store.datasets.add(name=name, format=format, source={}, owner="")
            checked = store.datasets.claim_check("checker", 60)
            assert checked is not None
            store.datasets.accept(checked, content_hash="0" * 64, counts={"samples": 640, "usable": 640})
        store.close()
        yield server


@pytest.fixture
def look(chromium: Browser, server: RunningServer) -> Iterator[Open]:
    """Opens a page. After the test, no page has complained about more than refused requests, or asked elsewhere."""
    opened: list[Page] = []
    complaints: list[str] = []
    asked: list[str] = []

    def look(address: str, *, width: int = 1280, session: dict[str, Any] | None = None) -> Page:
        page = chromium.new_page(viewport={"width": width, "height": 844})
        opened.append(page)
        page.set_default_timeout(TIMEOUT_MS)
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("dialog", lambda dialog: complaints.append(dialog.message))
        page.on("request", lambda request: asked.append(request.url))
        page.add_init_script(WATCH)
        if session is not None:
            page.route("**/session", lambda route: route.fulfill(json=session))
        page.goto(f"{server.url}/#/{address}")
        return page

    yield look
    for page in opened:
        assert page.evaluate("window.violations") == []
        assert (
            page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth") <= 0
        )
        page.close()
    refused = re.compile(r"the server responded with a status of (409|422)")
    assert [text for text in complaints if not refused.search(text)] == []
    assert [url for url in asked if not url.startswith(f"{server.url}/")] == []


def jobs(server: RunningServer) -> dict[str, dict[str, Any]]:
    listed = httpx.get(f"{server.url}/jobs", params={"limit": 100}).json()["data"]
    return {job["name"]: job for job in listed}


def estimated(page: Page, figure: str) -> list[str]:
    row = page.get_by_role("complementary", name="Check").get_by_role("row").filter(has_text=figure)
    return row.get_by_role("cell").all_inner_texts()[1:]


def test_job_and_its_control_are_checked_and_submitted_and_know_each_other(
    look: Open, server: RunningServer
) -> None:
    page = look("new")
    check = page.get_by_role("complementary", name="Check")
    expect(check.get_by_role("status")).to_have_text("Checked")
    assert estimated(page, "Steps") == ["200"]
    expect(check.get_by_role("note")).to_contain_text("No worker")

    page.get_by_label("epochs", exact=True).fill("3")
    expect(check.get_by_role("status")).to_have_text("Needs a change")
    expect(check).to_contain_text("Give either steps or epochs")
    page.get_by_label("epochs", exact=True).fill("")
    page.get_by_label("steps", exact=True).fill("30")

    page.locator("summary", has_text="Optimizer").click()
    rate = page.get_by_label("lr", exact=True)
    rate.fill("fast")
    expect(check.get_by_role("status")).to_have_text("Needs a change")
    expect(rate).to_have_attribute("aria-invalid", "true")
    expect(page.get_by_role("button", name="Start the job")).to_be_disabled()
    page.get_by_role("button", name="Back to the default of lr").click()
    expect(rate).to_have_value("0.0001")
    page.get_by_label("weight_decay").fill("0.1")

    page.get_by_label("Name", exact=True).fill("run")
    page.get_by_label("benchmark · 640 samples").check()
    page.get_by_label("Train the control too").check()
    expect(check.get_by_role("status")).to_have_text("Checked")
    assert estimated(page, "Images") == ["1,920", "1,920"]
    page.get_by_role("button", name="Start both jobs").click()
    expect(check.get_by_label("Submitted").get_by_role("link")).to_have_text(["run", "run-control"])
    expect(page.get_by_label("Name", exact=True)).to_have_value("run-2")

    run, control = jobs(server)["run"], jobs(server)["run-control"]
    assert run["metadata"] == {"control": control["id"]}
    assert control["metadata"] == {"control_of": "run"}
    assert (run["objective"], run["teacher"]) == ("sds-clip", "demo")
    assert (control["objective"], control["teacher"]) == ("clip", None)
    assert run["hyperparameters"] == control["hyperparameters"]
    assert (run["hyperparameters"]["steps"], run["hyperparameters"]["weight_decay"]) == (30, 0.1)
    assert [each["benchmark"] for each in control["evaluate"]] == ["winoground"]

    copy = look(f"new?from={run['id']}", width=390)
    expect(copy.get_by_label("Name", exact=True)).to_have_value("run-2")
    expect(copy.get_by_label("steps", exact=True)).to_have_value("30")
    expect(copy.get_by_label("Train the control too")).to_be_checked()
    copy.get_by_label("Name", exact=True).fill("run")
    copy.get_by_label("Train the control too").uncheck()
    copy.get_by_role("button", name="Start the job").click()
    expect(copy.get_by_label("Name", exact=True)).to_have_attribute("aria-invalid", "true")
    assert len([name for name in jobs(server) if name.startswith("run")]) == 2


def test_evaluation_names_the_benchmark_of_its_data(look: Open, server: RunningServer) -> None:
    page = look("new?kind=evaluate", width=390)
    page.get_by_label("Name", exact=True).fill(ATTACK)
    expect(page.get_by_role("complementary", name="Check").get_by_role("status")).to_have_text(
        "Needs a change"
    )
    page.get_by_label("Name", exact=True).fill("measured")
    page.get_by_role("button", name="Start the evaluation").click()
    expect(page.get_by_label("Submitted").get_by_role("link")).to_have_text(["measured"])

    job = jobs(server)["measured"]
    assert (job["benchmark"], job["scorer"]) == ("winoground", "clip")


def test_key_that_may_not_train_is_told_what_to_do(look: Open) -> None:
    key = {"name": ATTACK, "scopes": ["infer"]}
    page = look("new", session={"needs_key": True, "signed_in": True, "key": key})
    expect(page.get_by_text("Your key cannot start jobs.")).to_be_visible()
    page.goto(page.url.replace("#/new", "#/service"))
    expect(page.get_by_text("Your key does not see the workers.")).to_be_visible()
    expect(page.get_by_role("region", name="Versions served").get_by_text("serving").first).to_be_visible()


def test_service_shows_its_requests(look: Open, server: RunningServer) -> None:
    page = look("service", width=390)
    expect(readiness(page)).to_have_text("ready")
    expect(page.get_by_text("No worker has run within the last day.")).to_be_visible()
    ask_for_a_match(server)
    row = page.get_by_role("row").filter(has_text="/match")
    expect(row).to_contain_text("ms")
    expect(page.get_by_role("img", name="Memory since this page was opened")).to_be_visible()


def test_service_page_goes_on_after_a_restart(chromium: Browser, tmp_path: Path) -> None:
    model = f"local-dir:{save_tiny_clip(tmp_path / 'model')}"
    with running_server(tmp_path, "--model", model) as first:
        page = chromium.new_page()
        page.set_default_timeout(TIMEOUT_MS)
        page.goto(f"{first.url}/#/service")
        expect(readiness(page)).to_have_text("ready")
    expect(page.get_by_text("The service does not answer.").first).to_be_visible()
    expect(readiness(page)).to_have_text("not ready")
    with running_server(tmp_path, "--model", model, port=int(first.url.rsplit(":", 1)[1])) as second:
        expect(readiness(page)).to_have_text("ready")
        expect(page.get_by_text("The service does not answer.")).to_have_count(0)
        ask_for_a_match(second)
        expect(page.get_by_role("row").filter(has_text="/match")).to_contain_text("ms")
        page.close()


def readiness(page: Page) -> Locator:
    return page.locator("h1 ~ [role=status]")


def ask_for_a_match(server: RunningServer) -> None:
    answer = httpx.post(
        f"{server.url}/match",
        files=[("images", png())],
        data={"texts": ["a circle"]},
        timeout=TIMEOUT_MS / 1000,
    )
    assert answer.status_code == 200, answer.text
