"""The console's page Results in a real Chromium, against a whole system that has evaluated two models."""

import json
import re
import shutil
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import httpx
import pytest
from playwright.sync_api import Locator, Page, expect

from sds_clip import Client
from tests.browser.console import ATTACK, NEEDS_CONSOLE, Look, item_cards, overflow, percent
from tests.sds_clip.embedded import Running, until

pytestmark = NEEDS_CONSOLE

HELD_OUT = Path(__file__).parents[2] / "demo/data/heldout"
ITEMS = 24
LIMIT_S = 180


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first held-out items of the demo world. What users may write attacks in some of them."""
    folder = tmp_path_factory.mktemp("items")
    (folder / "images").mkdir()
    lines = (HELD_OUT / "examples.jsonl").read_text().splitlines()[:ITEMS]
    items = [json.loads(line) for line in lines]
    for number, item in enumerate(items):
        for side in ("image_0", "image_1"):
            shutil.copy(HELD_OUT / f"images/{item[side]}.png", folder / "images")
        if number % 4 == 0:
            item["caption_0"] = f"{ATTACK} {item['caption_0']}"
            item["tag"] = item["collapsed_tag"] = ATTACK
    (folder / "examples.jsonl").write_text("\n".join(map(json.dumps, items)))
    return folder


@pytest.fixture(scope="module")
def system(models: list[str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with closing(Running(tmp_path_factory.mktemp("up"), SDS_CLIP_MODELS=",".join(models))) as running:
        yield running


@dataclass
class Evaluated:
    """Two evaluations of the same items."""

    url: str
    data: str
    before: str
    after: str

    def get(self, path: str, **params: str | int) -> Any:
        answer = httpx.get(f"{self.url}{path}", params=params, timeout=LIMIT_S)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def comparison(self) -> dict[str, Any]:
        found: dict[str, Any] = self.get(f"/jobs/{self.after}/comparison", **{"with": self.before})
        return found

    def items(self, **params: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.get(
            f"/jobs/{self.after}/items", limit=100, **{"with": self.before}, **params
        )["data"]
        return found


@pytest.fixture(scope="module")
def data(system: Running, folder: Path) -> str:
    with Client(system.url) as client:
        dataset: str = client.upload_dataset(folder, format="winoground", name="held-out")["id"]
        until(lambda: client.dataset(dataset)["status"] == "ready")
    return dataset


@pytest.fixture(scope="module")
def before(system: Running, data: str, models: list[str]) -> str:
    return evaluation(system.url, data, models[0], "first")


@pytest.fixture(scope="module")
def evaluated(system: Running, data: str, before: str, models: list[str]) -> Evaluated:
    return Evaluated(system.url, data, before, evaluation(system.url, data, models[1], "second"))


def evaluation(url: str, data: str, model: str, name: str) -> str:
    with Client(url) as client:
        job = client.evaluate("winoground", data, model=model, name=name).wait()
        assert job.status == "succeeded", job.error
        return job.id


def points(difference: float) -> str:
    text = f"{100 * difference:+.1f}".replace("-", "−")
    return "0.0" if text[1:] == "0.0" else text


def table(page: Page, name: str) -> dict[str, list[str]]:
    """The cells of a table's rows, without what is drawn, by the row's first cell."""
    rows = page.get_by_role("region", name=name).locator("tbody tr")
    expect(rows.first).to_be_visible()
    cells = [row.locator("td").all_inner_texts() for row in rows.all()]
    return {row[0]: row[1:] for row in cells}


def test_without_evaluations_it_says_how_to_make_one(look: Look, system: Running) -> None:
    page = look(system.url, "results")
    expect(page.get_by_text("No evaluation has finished yet.")).to_be_visible()
    expect(page.get_by_role("link", name="Start one")).to_have_attribute("href", "#/new?kind=evaluate")


def test_with_one_evaluation_it_says_how_to_get_another(look: Look, system: Running, before: str) -> None:
    page = look(system.url, "results")
    link = page.get_by_role("link", name="measure another model on the same data")
    expect(link).to_have_attribute("href", f"#/new?kind=evaluate&from={before}&model=")
    page.get_by_role("link", name="first", exact=True).click()
    expect(page.get_by_role("heading", level=1)).to_have_text("first")
    expect(page.get_by_text("Nothing else has measured these data yet.")).to_be_visible()


def test_metrics_are_those_of_the_job(look: Look, evaluated: Evaluated) -> None:
    page = look(evaluated.url, f"results/{evaluated.after}")
    result = evaluated.get(f"/jobs/{evaluated.after}")["result"]
    shown = table(page, "Metrics over all items")
    assert list(shown) == ["Group score", "Text score", "Image score", "GroupMatch"]
    for name, title in (("group_match", "GroupMatch"), ("group_score", "Group score")):
        metric = result["metrics"][name]
        value, _, interval, chance, count, _ = shown[title]
        assert value == percent(metric["value"])
        assert interval == f"{100 * metric['low']:.1f} to {100 * metric['high']:.1f} %"
        assert chance == percent(metric["chance"])
        assert count == str(ITEMS)
    by_tag = table(page, "Group score by tag")
    assert by_tag.keys() == result["by_tag"].keys()
    assert by_tag[ATTACK][0] == percent(result["by_tag"][ATTACK]["group_score"]["value"])


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")])
def test_two_are_ticked_compared_and_exchanged(
    look: Look, evaluated: Evaluated, width: int, scheme: Literal["light", "dark"]
) -> None:
    page = look(evaluated.url, "results", width=width, scheme=scheme)
    page.get_by_label("Compare first").check()
    expect(page.get_by_role("button", name="Compare", exact=True)).to_be_disabled()
    page.get_by_label("Compare second").check()
    page.get_by_role("button", name="Compare", exact=True).click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Comparison")

    compared = evaluated.comparison()
    titles = {"text": "Text", "image": "Image", "group": "Group", "group_match": "GroupMatch"}
    for exchanged in (False, True):
        expect(page.get_by_label("Before", exact=True)).to_contain_text("second" if exchanged else "first")
        shown = table(page, "Differences over all items")
        for name, title in titles.items():
            of = compared["outcomes"][name]
            assert shown[title][0] == points(-of["difference"] if exchanged else of["difference"])
            gained, lost = (of["counts"][which] for which in ("gained", "lost"))
            changed = (lost, gained) if exchanged else (gained, lost)
            assert tuple(map(int, shown[title][-3:-1])) == changed
        page.get_by_label("Outcome").select_option("group_match")
        tagged = table(page, "Differences by tag in GroupMatch")
        assert tagged.keys() == compared["by_tag"].keys()
        assert overflow(page) == 0
        page.get_by_role("button", name="Exchange").click()
        expect(page.get_by_label("Before", exact=True)).to_contain_text("first" if exchanged else "second")


def test_flipped_items_have_the_pictures_and_scores_of_the_service(look: Look, evaluated: Evaluated) -> None:
    counts = {name: of["counts"] for name, of in evaluated.comparison()["outcomes"].items()}
    outcome = max(counts, key=lambda name: min(counts[name]["gained"], counts[name]["lost"]))
    compared = f"results/{evaluated.after}/vs/{evaluated.before}?outcome={outcome}"
    page = look(evaluated.url, compared)
    for flip, title in (("right_to_wrong", "Right to wrong"), ("wrong_to_right", "Wrong to right")):
        expected = evaluated.items(flip=flip, outcome=outcome)
        page.get_by_label(title).check()
        expect(page).to_have_url(f"{evaluated.url}/#/{compared}&flip={flip}")
        expect(item_cards(page).first.locator("h3")).to_have_text(f"Item {expected[0]['id']}")
        expect(item_cards(page).first).to_have_attribute("aria-setsize", str(len(expected)))
        while page.get_by_role("button", name="Show more").is_visible():
            page.get_by_role("button", name="Show more").click()
            expect(page.get_by_role("feed")).to_have_attribute("aria-busy", "false")
        assert item_cards(page).locator("h3").all_inner_texts() == [f"Item {item['id']}" for item in expected]
        for card, item in zip(item_cards(page).all(), expected, strict=True):
            assert scores_of(card, "Before") == formatted(item["other"]["scores"])
            assert scores_of(card, "After") == formatted(item["scores"])
            captions = card.locator("figcaption").all_inner_texts()
            assert [text.split("\n", 1)[1] for text in captions] == item["captions"]
    picture = item_cards(page).first.locator("img")
    expect(picture).to_have_count(2)
    expect(picture.first).to_have_css("image-rendering", "pixelated")
    assert picture.first.evaluate("image => [image.naturalWidth, image.width]") == [64, 128]
    page.reload()
    expect(page.get_by_label("Wrong to right")).to_be_checked()
    assert item_cards(page).first.locator("h3").inner_text() == f"Item {expected[0]['id']}"


def test_items_of_the_filter_before_are_never_shown_as_those_of_the_new_one(
    look: Look, evaluated: Evaluated
) -> None:
    page = look(evaluated.url, f"results/{evaluated.after}/vs/{evaluated.before}")
    expect(item_cards(page)).to_have_count(10)
    page.get_by_role("feed").evaluate("""feed => {
        window.busy = [];
        new MutationObserver(() => window.busy.push(feed.ariaBusy)).observe(
            feed, { subtree: true, attributeFilter: ["aria-setsize"] });
    }""")
    page.get_by_label("Wrong to right").check()
    page.wait_for_function("window.busy.length > 0")
    assert page.evaluate("window.busy[0]") == "true"


def scores_of(card: Locator, title: str) -> list[list[str]]:
    rows = card.get_by_role("table", name=title).locator("tbody tr").all()
    return [[cell.strip("↔↕ \n") for cell in row.locator("td").all_inner_texts()] for row in rows]


def formatted(scores: list[list[float]]) -> list[list[str]]:
    return [[f"{value:.4f}".replace("-", "−") for value in row] for row in scores]


def test_right_and_wrong_items_of_one_evaluation_are_counted_and_shown(
    look: Look, evaluated: Evaluated
) -> None:
    page = look(evaluated.url, f"results/{evaluated.after}")
    outcome = evaluated.get(f"/jobs/{evaluated.after}")["result"]["outcome"]
    items = evaluated.items()
    for title, right in (("Right", True), ("Wrong", False)):
        expected = [item for item in items if item["outcomes"][outcome] is right]
        page.get_by_role("radio", name=re.compile(rf"^{title} ?{len(expected)}$")).check()
        expect(page).to_have_url(f"{evaluated.url}/#/results/{evaluated.after}?right={title.lower()}")
        shown = expected[:10]
        expect(item_cards(page)).to_have_count(len(shown))
        for card, item in zip(item_cards(page).all(), shown, strict=True):
            expect(card.locator("h3")).to_have_text(f"Item {item['id']}")
            expect(card).to_have_attribute("aria-setsize", str(len(expected)))


def test_tags_and_captions_that_attack_stay_text(look: Look, evaluated: Evaluated) -> None:
    page = look(evaluated.url, f"results/{evaluated.after}/vs/{evaluated.before}")
    expected = evaluated.items(tag=ATTACK)
    assert len(expected) == ITEMS / 4
    expect(item_cards(page)).to_have_count(10)
    page.get_by_label("Tag", exact=True).select_option(ATTACK)
    expect(item_cards(page)).to_have_count(len(expected))
    for card in item_cards(page).all():
        expect(card.locator(".badge").first).to_have_text(ATTACK)
        expect(card.locator("figcaption").first).to_contain_text(ATTACK)
    assert page.evaluate("document.querySelectorAll('img[onerror]').length") == 0


def test_keys_go_to_the_next_and_the_previous_item(look: Look, evaluated: Evaluated) -> None:
    page = look(evaluated.url, f"results/{evaluated.after}/vs/{evaluated.before}")
    item_cards(page).first.focus()
    page.keyboard.press("j")
    expect(item_cards(page).nth(1)).to_be_focused()
    page.keyboard.press("j")
    page.keyboard.press("k")
    expect(item_cards(page).nth(1)).to_be_focused()
    expect(page.locator("article[tabindex='0']")).to_have_count(1)


@pytest.mark.long
def test_evaluations_of_different_data_are_refused_in_the_service_s_words(
    look: Look, evaluated: Evaluated, system: Running, folder: Path, models: list[str], tmp_path: Path
) -> None:
    shutil.copytree(folder, tmp_path / "fewer")
    lines = (folder / "examples.jsonl").read_text().splitlines()
    (tmp_path / "fewer/examples.jsonl").write_text("\n".join(lines[:8]))
    with Client(system.url) as client:
        fewer = client.upload_dataset(tmp_path / "fewer", format="winoground")["id"]
        until(lambda: client.dataset(fewer)["status"] == "ready")
    other = evaluation(system.url, fewer, models[0], "fewer")
    page = look(evaluated.url, f"results/{evaluated.after}/vs/{other}", expected="status of 422")
    refused = httpx.get(f"{system.url}/jobs/{evaluated.after}/comparison", params={"with": other}).json()
    expect(page.get_by_role("alert").first).to_contain_text(refused["error"]["message"])


def test_picture_that_is_broken_or_gone_has_a_note(look: Look, evaluated: Evaluated, system: Running) -> None:
    item = evaluated.items()[0]
    (stored,) = system.data_dir.rglob(evaluated.data)
    (file,) = stored.rglob(f"ex_{item['id']}_img_0.png")
    file.write_bytes(file.read_bytes()[:50])
    compared = f"results/{evaluated.after}/vs/{evaluated.before}"
    page = look(evaluated.url, compared, expected="status of 4(10|22)")
    first = item_cards(page).first
    expect(first).to_contain_text("This picture was removed, or cannot be read.")
    expect(first.locator("img")).to_have_count(1)

    httpx.delete(f"{system.url}/datasets/{evaluated.data}").raise_for_status()
    page.reload()
    expect(item_cards(page).first.get_by_text("This picture was removed, or cannot be read.")).to_have_count(
        2
    )
    expect(item_cards(page).locator("img")).to_have_count(0)
