"""The console's pages New job and Service in a real Chromium, against a real service."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import Locator, Page, expect

from sds_clip.app.store import Store
from tests.app.conftest import png
from tests.app.serverside import RunningServer, running_server
from tests.browser.console import ATTACK, NEEDS_CONSOLE, TIMEOUT_MS, Look
from tests.browser.registry import add_data

pytestmark = NEEDS_CONSOLE


@pytest.fixture(scope="module")
def server(models: list[str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    folder = tmp_path_factory.mktemp("server")
    url = f"sqlite:///{folder}/jobs.db"
    with running_server(folder, "--model", models[0], SDS_CLIP_DATABASE_URL=url) as server:
        store = Store(url)
        for name, format in (("pairs", "pairs"), ("benchmark", "winoground")):
            add_data(store, name=name, format=format, samples=640)
        store.close()
        yield server


def jobs(server: RunningServer) -> dict[str, dict[str, Any]]:
    listed = httpx.get(f"{server.url}/jobs", params={"limit": 100}).json()["data"]
    return {job["name"]: job for job in listed}


def estimated(page: Page, figure: str) -> list[str]:
    row = page.get_by_role("complementary", name="Check").get_by_role("row").filter(has_text=figure)
    return row.get_by_role("cell").all_inner_texts()[1:]


def test_job_and_its_control_are_checked_and_submitted_and_know_each_other(
    look: Look, server: RunningServer
) -> None:
    page = look(server.url, "new", expected="status of 422")
    check = page.get_by_role("complementary", name="Check")
    expect(check).to_contain_text("Choose the training data first.")
    page.get_by_label("Training data", exact=True).select_option(label="pairs · 640 samples")
    expect(check.get_by_role("status")).to_have_text("Checked")
    assert estimated(page, "Steps") == ["200"]
    expect(check).to_contain_text("cannot estimate time and memory yet")
    expect(check.get_by_role("note")).to_contain_text("No worker")

    page.get_by_label("epochs", exact=True).fill("3")
    expect(check.get_by_role("status")).to_have_text("Needs a change")
    expect(check).to_contain_text("Give either steps or epochs")
    for name in ("steps", "epochs"):
        expect(page.get_by_label(name, exact=True)).to_have_attribute("aria-invalid", "true")
    assert estimated(page, "Steps") == []
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
    page.reload()
    expect(page.get_by_label("Name", exact=True)).to_have_value("run")
    expect(page.get_by_label("steps", exact=True)).to_have_value("30")
    page.get_by_label("benchmark · 640 samples").check()
    page.get_by_label("Train the control too").check()
    expect(check.get_by_role("status")).to_have_text("Checked")
    assert estimated(page, "Images") == ["1,920", "1,920"]
    page.get_by_role("button", name="Start both jobs").click()
    expect(check.get_by_label("Submitted").get_by_role("link")).to_have_text(["run", "run-control"])
    expect(page.get_by_label("Name", exact=True)).to_have_value("run-2")
    expect(check.get_by_label("Submitted")).to_contain_text("kept for another job, to be called run-2")
    expect(page.get_by_role("button", name="Start two more jobs")).to_be_visible()

    run, control = jobs(server)["run"], jobs(server)["run-control"]
    assert run["metadata"] == {"control": control["id"]}
    assert control["metadata"] == {"control_of": "run"}
    assert (run["objective"], run["teacher"]) == ("sds-clip", "demo")
    assert (control["objective"], control["teacher"]) == ("clip", None)
    assert run["hyperparameters"] == control["hyperparameters"]
    assert (run["hyperparameters"]["steps"], run["hyperparameters"]["weight_decay"]) == (30, 0.1)
    assert [each["benchmark"] for each in control["evaluate"]] == ["winoground"]

    copy = look(server.url, f"new?from={run['id']}", width=390, expected="status of 409")
    expect(copy.get_by_label("Name", exact=True)).to_have_value("run-2")
    expect(copy.get_by_label("steps", exact=True)).to_have_value("30")
    expect(copy.get_by_label("Train the control too")).to_be_checked()
    copy.get_by_label("Name", exact=True).fill("run")
    copy.get_by_label("Train the control too").uncheck()
    copy.get_by_role("button", name="Start the job").click()
    expect(copy.get_by_label("Name", exact=True)).to_have_attribute("aria-invalid", "true")
    assert len([name for name in jobs(server) if name.startswith("run")]) == 2


def test_all_wrong_fields_are_marked_at_once_also_in_folds(look: Look, server: RunningServer) -> None:
    page = look(server.url, "new", expected="status of 422")
    check = page.get_by_role("complementary", name="Check")
    wrong = {"batch_size": "1", "lr": "fast", "log_every": "0.5"}
    folds = {"lr": "Optimizer", "log_every": "Machine and files"}
    for name, text in wrong.items():
        if name in folds:
            page.locator("summary", has_text=folds[name]).click()
        page.get_by_label(name, exact=True).fill(text)
    told = check.get_by_role("list", name="Fields to correct").get_by_role("listitem")
    expect(told).to_have_text(
        [
            "hyperparameters.batch_size: Enter a whole number, at least 2.",
            "hyperparameters.lr: Enter a number, above 0.",
            "hyperparameters.log_every: Enter a whole number, at least 1.",
        ]
    )
    for name in folds:  # one may close a fold in which something is wrong, and still sees that
        page.locator("summary", has_text=folds[name]).click()
        expect(page.get_by_label(name, exact=True)).to_be_hidden()
        expect(page.locator("summary", has_text=folds[name])).to_contain_text("1 to correct")

    page.reload()  # which opens the folds, of which the page knows that something in them is wrong
    for name in wrong:
        expect(page.get_by_label(name, exact=True)).to_be_visible()
        expect(page.get_by_label(name, exact=True)).to_have_attribute("aria-invalid", "true")
    page.get_by_label("Training data", exact=True).select_option(label="pairs · 640 samples")
    expect(check.get_by_role("status")).to_have_text("Needs a change")
    expect(told).to_have_count(3)  # of which the service has told at least one
    for name in wrong:
        page.get_by_role("button", name=f"Back to the default of {name}").click()
    expect(check.get_by_role("status")).to_have_text("Checked")
    expect(told).to_have_count(0)
    expect(page.get_by_label("lr", exact=True)).to_be_visible()


def test_evaluation_names_the_benchmark_of_its_data(look: Look, server: RunningServer) -> None:
    page = look(server.url, "new?kind=evaluate", width=390, expected="status of 422")
    page.get_by_label("Data", exact=True).select_option(label="benchmark · 640 samples")
    page.get_by_label("Name", exact=True).fill(ATTACK)
    expect(page.get_by_role("complementary", name="Check").get_by_role("status")).to_have_text(
        "Needs a change"
    )
    page.get_by_label("Name", exact=True).fill("measured")
    page.get_by_role("button", name="Start the evaluation").click()
    expect(page.get_by_label("Submitted").get_by_role("link")).to_have_text(["measured"])

    job = jobs(server)["measured"]
    assert (job["benchmark"], job["scorer"]) == ("winoground", "clip")


def test_job_that_is_not_there_leaves_an_empty_form_and_the_way_to_the_list(
    look: Look, server: RunningServer
) -> None:
    page = look(server.url, "new?from=bad", expected="status of 404")
    expect(page.get_by_role("note").filter(has_text="no job bad")).to_be_visible()
    expect(page.get_by_label("Training data", exact=True)).to_have_value("")
    page.get_by_role("link", name="Choose one from the list of jobs.").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Jobs")


def test_service_shows_its_requests(look: Look, server: RunningServer) -> None:
    ask_for_a_match(server)
    page = look(server.url, "service", width=390)
    expect(readiness(page)).to_have_text("ready")
    expect(page.get_by_text("No worker has run within the last day.")).to_be_visible()
    expect(matches_since(page, "the process started")).to_contain_text("ms")
    expect(matches_since(page, "this page was opened")).to_have_count(0)
    ask_for_a_match(server)
    expect(matches_since(page, "this page was opened")).to_contain_text("ms")
    expect(page.get_by_role("img", name="Memory since this page was opened")).to_be_visible()


@pytest.mark.long
def test_service_page_goes_on_after_a_restart(look: Look, models: list[str], tmp_path: Path) -> None:
    named = ("--model", models[0])
    with running_server(tmp_path, *named) as first:
        page = look(first.url, "service", expected="status of 501")  # by a service without a database
        expect(readiness(page)).to_have_text("ready")
    expect(page.get_by_text("The service does not answer.").first).to_be_visible()
    expect(readiness(page)).to_have_text("not ready")
    with running_server(tmp_path, *named, port=int(first.url.rsplit(":", 1)[1])) as second:
        expect(readiness(page)).to_have_text("ready")
        expect(page.get_by_text("The service does not answer.")).to_have_count(0)
        ask_for_a_match(second)
        expect(matches_since(page, "the process started")).to_contain_text("ms")


def readiness(page: Page) -> Locator:
    return page.locator("h1 ~ [role=status]")


def matches_since(page: Page, since: str) -> Locator:
    table = page.get_by_role("region", name=f"Figures by route since {since}")
    return table.get_by_role("row").filter(has_text="/match")


def ask_for_a_match(server: RunningServer) -> None:
    answer = httpx.post(
        f"{server.url}/match",
        files=[("images", png())],
        data={"texts": ["a circle"]},
        timeout=TIMEOUT_MS / 1000,
    )
    assert answer.status_code == 200, answer.text
