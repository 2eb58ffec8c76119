"""The pages of jobs in a real Chromium, against a whole system whose worker trains."""

import json
import os
import re
import signal
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import httpx
import pytest
from playwright.sync_api import expect

from sds_clip import Client
from tests.browser.console import ATTACK, NEEDS_CONSOLE, Look, go_to, job_row, see_it_grow
from tests.sds_clip.embedded import Running, until
from tests.training import save_coco

pytestmark = [pytest.mark.slow, *NEEDS_CONSOLE]
TINY = {"batch_size": 4, "warmup_steps": 1, "log_every": 1, "save_every": 2}


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with closing(Running(tmp_path_factory.mktemp("up"))) as running:
        yield running


@pytest.fixture(scope="module")
def dataset(system: Running, tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("sets")
    save_coco(folder / "pairs")
    with Client(system.url) as client:
        made = client.upload_dataset(folder / "pairs", format="pairs", name="noise")
        until(lambda: client.dataset(made["id"])["status"] == "ready")
    return str(made["id"])


@pytest.fixture
def submit(system: Running, dataset: str) -> Iterator[Callable[..., str]]:
    """Submits a job that trains, by default without an end in sight. What a test leaves is cancelled."""
    jobs: list[str] = []

    def submit(steps: int = 100_000, log_every: int = 1, **fields: Any) -> str:
        options = {**TINY, "steps": steps, "log_every": log_every}
        with Client(system.url) as client:
            job = client.finetune(dataset, objective="clip", hyperparameters=options, **fields)
        jobs.append(job.id)
        return job.id

    yield submit
    with Client(system.url) as client:
        for job in map(client.job, jobs):
            if not job.has_ended:
                job.cancel()
        until(lambda: all(client.job(id).has_ended for id in jobs))


@pytest.mark.long
def test_job_is_followed_paused_and_resumed_with_its_control_laid_over(
    system: Running, submit: Callable[..., str], look: Look
) -> None:
    control = submit(4, name="run-control")
    job = submit(name="run", metadata={"why": ATTACK, "control": control}, suffix="tried")
    page = look(system.url, "jobs")
    expect(job_row(page, "run-control").get_by_text("succeeded")).to_be_visible()
    job_row(page, "run").get_by_role("link").click()

    expect(page.get_by_role("heading", level=1)).to_have_text("run")
    expect(page.get_by_text("Trains the LayerNorms of")).to_contain_text(
        "on noise for 100,000 steps of 4 pairs, by CLIP’s contrastive loss alone: a control, without a teacher."
    )
    see_it_grow(page)
    expect(page.get_by_text(ATTACK)).to_be_visible()
    other = page.get_by_label("Lay over the curves of")
    other.select_option("run-control (the control)")
    expect(page.get_by_role("img", name="Loss by step")).to_have_attribute(
        "aria-label", re.compile("run-control .* at step 4")
    )
    assert page.url.endswith(f"#/jobs/{job}?with={control}")

    page.get_by_role("button", name="Pause").click()
    events = page.get_by_label("Events")
    expect(events.get_by_text("paused", exact=True)).to_be_visible()
    page.get_by_role("button", name="Resume").click()
    see_it_grow(page)
    expect(page.get_by_label("Checkpoints").get_by_text("newest")).to_be_visible()
    expect(
        page.get_by_label("Configuration").get_by_role("row").filter(has_text="batch_size")
    ).to_contain_text("4 changed")
    page.get_by_role("button", name="Cancel").click()
    page.get_by_role("dialog").get_by_role("button", name="Cancel the job").click()
    expect(page.get_by_role("button", name="Retry")).to_be_visible()


def test_part_of_a_curve_is_asked_for_and_the_whole_again(
    system: Running, submit: Callable[..., str], look: Look
) -> None:
    job = submit(12, name="zoomed")
    page = look(system.url, f"jobs/{job}")
    expect(page.get_by_text("succeeded", exact=True).first).to_be_visible()
    chart = page.locator(".chart").first.locator(".u-over")
    box = chart.bounding_box()
    assert box is not None
    with page.expect_request(lambda request: "from_step" in request.url) as asked:
        page.mouse.move(box["x"] + box["width"] * 0.3, box["y"] + 20)
        page.mouse.down()
        page.mouse.move(box["x"] + box["width"] * 0.6, box["y"] + 30, steps=4)
        page.mouse.up()
    query = httpx.URL(asked.value.url).params
    first, last = int(query["from_step"]), int(query["to_step"])
    assert 1 < first < last < 12
    expect(page.get_by_label("From step")).to_have_value(str(first))
    expect(page.get_by_role("img", name="Loss by step")).to_have_attribute(
        "aria-label", re.compile(f"at step {last}\\.")
    )
    chart.dblclick()
    expect(page.get_by_label("From step")).to_have_value("")
    expect(page.get_by_role("img", name="Loss by step")).to_have_attribute(
        "aria-label", re.compile("at step 12\\.")
    )
    page.get_by_text("The last values as a table").click()
    loss = httpx.get(f"{system.url}/jobs/{job}/curves", params={"names": "loss"}).json()["curves"]["loss"]
    shown = page.get_by_role("row").filter(has=page.get_by_role("cell", name="Loss", exact=True))
    assert float(shown.get_by_role("cell").nth(2).inner_text()) == pytest.approx(
        loss["last"]["value"], rel=1e-3
    )


def test_range_without_a_point_keeps_the_charts_and_the_way_back(
    system: Running, submit: Callable[..., str], look: Look
) -> None:
    page = look(system.url, f"jobs/{submit(12, log_every=5, name='sparse')}")
    expect(page.get_by_text("succeeded", exact=True).first).to_be_visible()
    loss = page.get_by_role("img", name="Loss by step")
    expect(loss).to_have_attribute("aria-label", re.compile(r"at step 12\."))
    facts = page.get_by_role("region", name="Resources").locator("dd").all_inner_texts()[:6]

    page.get_by_label("From step").fill("6")
    page.get_by_label("To step").fill("4")
    expect(page.get_by_text("Enter a step after 6.")).to_be_visible()
    expect(page.get_by_role("button", name="Zoom")).to_be_disabled()
    page.get_by_label("To step").fill("9")
    page.get_by_role("button", name="Zoom").click()
    expect(page.get_by_role("status").filter(has_text="from step 6 to 9")).to_contain_text(
        "The job logs every 5 steps."
    )
    expect(loss).to_have_attribute("aria-label", "Loss by step. Last values: none.")
    assert page.get_by_role("region", name="Resources").locator("dd").all_inner_texts()[:6] == facts

    page.get_by_label("To step").fill("11")
    page.get_by_role("button", name="Zoom").click()
    expect(loss).to_have_attribute("aria-label", re.compile(r"at step 10\."))
    page.get_by_role("button", name="All steps").click()
    expect(loss).to_have_attribute("aria-label", re.compile(r"at step 12\."))


@pytest.mark.long
def test_pages_go_on_when_the_service_is_started_again(
    system: Running, submit: Callable[..., str], look: Look
) -> None:
    job = submit(name="through")
    page = look(system.url, f"jobs/{job}")
    expect(page.get_by_role("img", name="Loss by step")).to_be_visible()
    service = system.part("sds_clip serve")
    assert service is not None
    os.kill(service, signal.SIGKILL)
    expect(page.get_by_text("Reconnecting")).to_be_visible()
    expect(page.get_by_text("Reconnecting")).to_have_count(0)
    see_it_grow(page)

    told = page.get_by_label("Curves").get_by_role("img", name="Loss by step")
    assert told.count() == 1
    points = httpx.get(f"{system.url}/jobs/{job}/curves", params={"names": "loss"}).json()["curves"]["loss"]
    assert points["steps"] == list(range(1, points["steps"][-1] + 1))


@pytest.mark.long
def test_list_follows_what_changes_through_a_restart_and_its_filters_are_in_the_address(
    system: Running, submit: Callable[..., str], look: Look
) -> None:
    submit(name="first")
    page = look(system.url, "jobs?status=running&name=first")
    expect(job_row(page, "first").get_by_text("running")).to_be_visible()
    expect(page.get_by_label("Status")).to_have_value("running")
    page.get_by_label("Name begins with").fill("sec")
    expect(page.get_by_text("No job fits these filters.")).to_be_visible()
    assert page.url.endswith("#/jobs?status=running&name=sec")
    page.get_by_label("Status").select_option("queued")

    service = system.part("sds_clip serve")
    assert service is not None
    os.kill(service, signal.SIGKILL)
    expect(page.get_by_text("Reconnecting")).to_be_visible()
    until(lambda: is_there(system))
    submit(name="second")
    expect(job_row(page, "second")).to_be_visible()
    page.reload()
    expect(job_row(page, "second")).to_be_visible()


def test_every_word_of_a_job_is_text(
    system: Running, submit: Callable[..., str], dataset: str, look: Look
) -> None:
    """The answers of the service, with markup wherever somebody may have written it, or once might."""
    real = httpx.get(f"{system.url}/jobs/{submit(2)}").json()
    data = {**httpx.get(f"{system.url}/datasets/{dataset}").json(), "id": ATTACK, "name": ATTACK}

    def answer(route: Any) -> None:
        job = {**real, "name": ATTACK, "owner": ATTACK, "suffix": ATTACK, "metadata": {ATTACK: ATTACK}}
        job |= {
            "status": "failed",
            "training_data": ATTACK,
            "base": ATTACK,
            "teacher": ATTACK,
            "alias": ATTACK,
        }
        job["error"] = {"code": ATTACK, "message": ATTACK, "param": ATTACK, "retryable": False}
        path = httpx.URL(route.request.url).path
        listed = {"object": "list", "has_more": False, "data": [job]}
        route.fulfill(body=json.dumps(listed if path == "/jobs" else job), content_type="application/json")

    page = look(system.url)
    page.route(f"{system.url}/jobs?*", answer)
    page.route(f"{system.url}/jobs/{real['id']}", answer)
    page.route(f"{system.url}/datasets/*", lambda route: route.fulfill(json=data))
    page.reload()  # nothing that was asked before may be shown
    go_to(page, "Jobs")
    job_row(page, ATTACK).get_by_role("link").click()
    expect(page.get_by_role("heading", level=1)).to_have_text(ATTACK)
    expect(page.get_by_role("alert").get_by_text(ATTACK).first).to_be_visible()
    expect(page.get_by_label("Notes").get_by_text(ATTACK).first).to_be_visible()
    assert page.locator("main img").count() == 0


def is_there(system: Running) -> bool:
    try:
        return httpx.get(f"{system.url}/ready").status_code == httpx.codes.OK
    except httpx.TransportError:
        return False
