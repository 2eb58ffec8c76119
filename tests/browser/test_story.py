"""The whole story in a real Chromium: a teacher is distilled, and the new version is promoted and rolled back.

Everything is done in the console, by clicks. What the console then shows is compared with what the service answers to
another client.
"""

import re
import shutil
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import Page, expect

from sds_clip.demo.folders import write_pairs, write_retrieval
from sds_clip.demo.sets import pairs, retrieval_set
from sds_clip.demo.training_set import DISTILLATION_SEED
from sds_clip.demo.winoground_sets import winoground_items, write_winoground
from sds_clip.demo.world import IMAGE_SIZE_PX, Split
from tests.browser.console import (
    NEEDS_CONSOLE,
    Look,
    go_to,
    item_cards,
    job_row,
    match,
    percent,
    readings,
    see_it_grow,
)
from tests.sds_clip.embedded import Running
from tools.console_story import CAPTIONS, PICTURE, REASON, SHORT

pytestmark = [pytest.mark.long, pytest.mark.slow, *NEEDS_CONSOLE]

TRAINING = {**SHORT, "steps": 30, "warmup_steps": 5, "sds_batch_size": 8, "score_draws": 2}
PAIRS = 512
RETRIEVAL_ITEMS = 128
ITEMS_PER_KIND = 50
VERDICTS = {"better": "Better", "not_better": "Not better"}
"""The words for what a training of this length comes to, which may be either."""


class Service:
    """The service as another client sees it."""

    def __init__(self, url: str) -> None:
        self._client = httpx.Client(base_url=url, timeout=60)

    def close(self) -> None:
        self._client.close()

    def get(self, path: str, **query: str | int) -> Any:
        return self._body(self._client.get(path, params=query))

    def dry_run(self, version: str) -> Any:
        body = {"alias": "default", "reason": "to see what would happen", "dry_run": True}
        return self._body(self._client.post(f"/models/{version}/promote", json=body))

    def match(self, model: str) -> Any:
        data = {"texts": CAPTIONS, "model": model}
        return self._body(self._client.post("/match", files={"images": PICTURE.read_bytes()}, data=data))

    def served(self) -> str:
        """The version that answers requests that name no model."""
        return str(self.match("default")["model"]["version"])

    @staticmethod
    def _body(answer: httpx.Response) -> Any:
        assert answer.is_success, answer.text
        return answer.json()


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with closing(Running(tmp_path_factory.mktemp("up"))) as running:
        yield running


@pytest.fixture(scope="module")
def service(system: Running) -> Iterator[Service]:
    with closing(Service(system.url)) as service:
        yield service


def archives(folder: Path) -> list[Path]:
    """Demo data as a user would have them on disk. Each archive has the name of its format."""
    folders = {format: folder / format for format in ("pairs", "winoground", "retrieval")}
    write_pairs(folders["pairs"], pairs(Split.TRAIN, DISTILLATION_SEED, 0, PAIRS))
    write_winoground(folders["winoground"], winoground_items(Split.VALIDATION, ITEMS_PER_KIND))
    write_retrieval(folders["retrieval"], retrieval_set(Split.VALIDATION, RETRIEVAL_ITEMS))
    return [Path(shutil.make_archive(str(path), "tar", path)) for path in folders.values()]


def test_teacher_is_distilled_and_the_new_version_compared_promoted_tried_and_rolled_back(
    look: Look, system: Running, service: Service, tmp_path: Path
) -> None:
    page = look(system.url, expected="status of 422")
    base = service.served()
    for archive in archives(tmp_path):
        upload(page, service, archive)
    go_to(page, "New job")
    page.get_by_role("tab", name="Evaluate").click()
    evaluate(page, service, "winoground", "before", model=base)
    train_with_control(page, service)
    tuned = watch(page, service)

    page.get_by_role("region", name="Result").get_by_role("link", name=tuned[:12]).click()
    page.get_by_role("button", name="Promote…").click()
    expect(page.get_by_text("Not compared", exact=True)).to_be_visible()
    page.get_by_role("link", name="retrieval", exact=True).click()
    evaluate(page, service, "retrieval", "kept", model=tuned, baseline=base)
    evaluate(page, service, "winoground", "after", model=tuned)
    compare(page, service)
    promote(page, service, tuned)
    try_both(page, service, base, tuned)
    roll_back(page, service, base, tuned)


def upload(page: Page, service: Service, archive: Path) -> None:
    format = archive.stem
    go_to(page, "Data")
    page.get_by_role("link", name="Add data").click()
    page.get_by_label("Format", exact=True).select_option(format)
    page.get_by_label("Archive", exact=True).set_input_files(archive)
    page.get_by_role("button", name="Upload", exact=True).click()
    expect(page.get_by_role("heading", level=1)).to_have_text(format)
    expect(page.get_by_role("link", name=re.compile("(Train|Evaluate) on it"))).to_be_visible()

    dataset = service.get(f"/datasets/{format}")
    assert (dataset["status"], dataset["format"]) == ("ready", format)
    facts = page.get_by_role("region", name="Facts").locator("dd").all_inner_texts()
    assert facts[: len(dataset["counts"])] == [f"{number:,}" for number in dataset["counts"].values()]


def evaluate(page: Page, service: Service, data: str, name: str, *, model: str, baseline: str = "") -> None:
    """Fill in the form for an evaluation, and start it."""
    page.get_by_label("Data", exact=True).select_option(service.get(f"/datasets/{data}")["id"])
    page.get_by_label("Name", exact=True).fill(name)
    page.get_by_label("Model", exact=True).select_option(model)
    page.get_by_label("Baseline", exact=True).select_option(baseline)
    page.get_by_role("button", name="Start the evaluation").click()
    expect(page.get_by_label("Submitted").get_by_role("link")).to_have_text([name])
    job = service.get(f"/jobs/{name}")
    assert (job["model"], job["baseline"]) == (model, baseline or None)


def train_with_control(page: Page, service: Service) -> None:
    go_to(page, "Data")
    page.get_by_role("link", name="pairs", exact=True).click()
    page.get_by_role("link", name="Train on it").click()
    page.get_by_label("Name", exact=True).fill("distilled")
    page.get_by_role("radio", name=re.compile("^score ")).check()
    page.get_by_label("Teacher", exact=True).select_option("demo")
    closed = page.locator("details:not([open]) > summary")
    while closed.count():
        closed.first.click()
    for name, value in TRAINING.items():
        field = page.get_by_label(name, exact=True)
        if isinstance(value, str):
            field.select_option(value)
        else:
            field.fill(str(value))
    page.get_by_label("Train the control too").check()
    check = page.get_by_role("complementary", name="Check")
    expect(check.get_by_role("status")).to_have_text("Checked")
    steps = check.get_by_role("row").filter(has_text="Steps").get_by_role("cell").all_inner_texts()
    assert steps[1:] == [str(TRAINING["steps"])] * 2
    page.get_by_role("button", name="Start both jobs").click()
    expect(check.get_by_label("Submitted").get_by_role("link")).to_have_text(
        ["distilled", "distilled-control"]
    )

    job, control = (service.get(f"/jobs/{name}") for name in ("distilled", "distilled-control"))
    assert job["hyperparameters"].items() >= TRAINING.items()
    assert control["hyperparameters"] == job["hyperparameters"]
    assert (job["objective"], job["teacher"]) == ("score", "demo")
    assert (control["objective"], control["teacher"]) == ("clip", None)


def watch(page: Page, service: Service) -> str:
    """Watch the job's curve while it trains, and the control's beside it. Returns the version that it makes."""
    page.get_by_label("Submitted").get_by_role("link", name="distilled", exact=True).click()
    loss = page.get_by_role("img", name="Loss by step")
    expect(loss).to_be_visible()
    see_it_grow(page)
    page.get_by_label("Lay over the curves of").select_option("distilled-control (the control)")
    expect(page.get_by_role("region", name="Result")).to_be_visible()

    steps = TRAINING["steps"]
    for name in ("distilled", "distilled-control"):
        expect(loss).to_have_attribute("aria-label", re.compile(rf"{name} [^,]* at step {steps}\b"))
    page.get_by_text("The last values as a table").click()
    shown = page.get_by_role("row").filter(has=page.get_by_role("cell", name="Loss", exact=True))
    for place, name in ((2, "distilled"), (3, "distilled-control")):
        last = service.get(f"/jobs/{name}/curves", names="loss")["curves"]["loss"]["last"]
        assert last["step"] == steps
        value = float(shown.get_by_role("cell").nth(place).inner_text())
        assert value == pytest.approx(last["value"], rel=1e-3)
    job = service.get("/jobs/distilled")
    assert job["status"] == "succeeded"
    return str(job["result_version"])


def compare(page: Page, service: Service) -> None:
    """Compare the two evaluations, and look at the items that flipped."""
    go_to(page, "Jobs")
    for name in ("before", "kept", "after"):
        expect(job_row(page, name).get_by_text("succeeded")).to_be_visible()
    go_to(page, "Results")
    page.get_by_label("Compare before").check()
    page.get_by_label("Compare after").check()
    page.get_by_role("button", name="Compare", exact=True).click()

    compared = service.get("/jobs/after/comparison", **{"with": "before"})
    outcome = compared["outcome"]
    for flip, count in (("wrong_to_right", "gained"), ("right_to_wrong", "lost")):
        page.get_by_label(flip.replace("_", " ")).check()
        found = compared["outcomes"][outcome]["counts"][count]
        assert found > 0
        items = service.get("/jobs/after/items", limit=10, flip=flip, outcome=outcome, **{"with": "before"})[
            "data"
        ]
        cards = item_cards(page)
        expect(cards.locator("h3")).to_have_text([f"Item {item['id']}" for item in items])
        expect(cards.first).to_have_attribute("aria-setsize", str(found))
        for place, path in enumerate(items[0]["images"]):
            picture = cards.first.locator("img").nth(place)
            expect(picture).to_have_attribute("src", re.compile(re.escape(path)))
            expect(picture).to_have_js_property("naturalWidth", IMAGE_SIZE_PX)


def promote(page: Page, service: Service, version: str) -> None:
    go_to(page, "Versions")
    lineage = page.get_by_role("region", name="Versions and what they were made from")
    lineage.get_by_role("link", name=version[:12]).click()
    page.get_by_role("button", name="Promote…").click()
    gate = service.dry_run(version)["gate"]
    expect(page.get_by_text(VERDICTS[gate["verdict"]], exact=True)).to_be_visible()
    why = gate["why"]
    for data in service.get("/datasets")["data"]:
        why = why.replace(data["id"], data["name"] or data["id"])
    expect(page.get_by_text(why)).to_be_visible()
    conditions = page.get_by_role("region", name="The gate’s conditions").locator("tbody tr")
    assert [row.locator("td").last.inner_text() for row in conditions.all()] == [
        "pass" if check["passed"] else "fail" for check in gate["checks"]
    ]
    for job in gate["evidence"]:
        expect(page.get_by_role("link", name=job)).to_be_visible()
    button = page.get_by_role("button", name="Promote to default")
    expect(button).to_be_disabled()
    page.get_by_label("Reason").fill(REASON)
    page.get_by_label("Wait until every process serves it").check()
    button.click()
    expect(page.get_by_text("The one process serves it.")).to_be_visible()
    assert service.served() == version


def try_both(page: Page, service: Service, base: str, tuned: str) -> None:
    go_to(page, "Try")
    page.get_by_label("Version", exact=True).select_option(base)
    page.get_by_label("Compare with").select_option(tuned)
    match(page, [PICTURE], CAPTIONS)

    shares = [service.match(model)["results"][0]["probabilities"] for model in (base, tuned)]
    assert shares[0] != shares[1]
    by_text = sorted(zip(CAPTIONS, *shares, strict=True), key=lambda row: -row[1])
    assert readings(page, 0) == [(text, [percent(one), percent(two)]) for text, one, two in by_text]


def roll_back(page: Page, service: Service, base: str, tuned: str) -> None:
    go_to(page, "Versions")
    page.get_by_role("button", name="Roll back default").click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text(f"from {tuned[:12]} to {base[:12]}")
    dialog.get_by_label("Reason").fill("That was the story.")
    dialog.get_by_label("Wait until every process serves it").check()
    dialog.get_by_role("button", name=f"Roll back to {base[:12]}").click()
    expect(dialog).to_contain_text("The one process serves it.")
    assert service.served() == base
    dialog.get_by_role("button", name="Done").click()

    page.get_by_role("tab", name="Audit trail").click()
    lines = page.get_by_role("region", name="What was done to aliases").locator("tbody tr")
    expect(lines.nth(0)).to_contain_text("That was the story.")
    expect(lines.nth(1)).to_contain_text(REASON)
    audit = service.get("/promotions")["data"]
    assert [(line["action"], line["to_version"]) for line in audit[:2]] == [
        ("rollback", base),
        ("promote", tuned),
    ]
