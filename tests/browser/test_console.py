"""The console in a real Chromium, against a real service that serves two models."""

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import httpx
import pytest
from playwright.sync_api import expect

from tests.app.conftest import png
from tests.app.serverside import RunningServer, running_server
from tests.browser.console import (
    ATTACK,
    NEEDS_CONSOLE,
    TIMEOUT_MS,
    Look,
    go_to,
    match,
    overflow,
    percent,
    readings,
)

pytestmark = NEEDS_CONSOLE
HELD_OUT = Path(__file__).parents[2] / "demo/data/heldout/images"
PAGES = ["Try", "Jobs", "New job", "Data", "Results", "Versions", "Service"]
AXE = Path(__file__).parents[2] / "console/node_modules/axe-core/axe.min.js"
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]
Scheme = Literal["light", "dark"]


@pytest.fixture(scope="module")
def server(models: list[str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    folder = tmp_path_factory.mktemp("server")
    named = [word for model in models for word in ("--model", model)]
    with running_server(folder, *named, SDS_CLIP_DATABASE_URL=f"sqlite:///{folder}/jobs.db") as server:
        yield server


@pytest.fixture
def pictures(tmp_path: Path) -> list[Path]:
    files = [tmp_path / f"{ATTACK.replace('/', '')}.png", tmp_path / "two.png"]
    for seed, file in enumerate(files):
        file.write_bytes(png(64, 48, seed=seed))
    return files


def answer(
    server: RunningServer, route: str, pictures: list[Path], **fields: str | list[str]
) -> dict[str, Any]:
    """What the service itself says to the same request."""
    files = [("images", file.read_bytes()) for file in pictures]
    answer: dict[str, Any] = httpx.post(
        f"{server.url}/{route}", files=files, data=fields, timeout=TIMEOUT_MS / 1000
    ).json()
    return answer


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_two_models_are_matched_and_classified_as_the_service_answers(
    look: Look,
    server: RunningServer,
    models: list[str],
    pictures: list[Path],
    width: int,
    scheme: Scheme,
) -> None:
    page = look(server.url, width=width, scheme=scheme)
    texts = [ATTACK, "a red circle", "a blue square"]
    page.get_by_label("Version", exact=True).select_option(models[0])
    page.get_by_label("Compare with").select_option(models[1])
    match(page, pictures, texts)

    answers = [answer(server, "match", pictures, texts=texts, model=model) for model in models]
    for place in range(2):
        probabilities = [each["results"][place]["probabilities"] for each in answers]
        expected = sorted(zip(texts, *probabilities, strict=True), key=lambda row: -row[1])
        assert readings(page, place) == [
            (text, [percent(share) for share in shares]) for text, *shares in expected
        ]

    page.get_by_role("tab", name="Matrix").click()
    page.get_by_label("Numbers").select_option("pictures")
    cell = page.get_by_role("row", name="a red circle").first.get_by_role("cell").nth(1)
    assert cell.inner_text() == percent(answers[0]["text_probabilities"][1][1])

    page.get_by_role("tab", name="Classify").click()
    page.get_by_role("textbox", name="Labels").fill("circle\nsquare")
    page.get_by_role("button", name="Classify", exact=True).click()
    expect(page.locator(".reading").first.locator("ol > li")).to_have_count(2)
    classified = answer(server, "classify", pictures, labels=["circle", "square"], model=models[0])
    best = classified["results"][0]["predictions"][0]
    assert readings(page, 0)[0][0] == best["label"]


@pytest.mark.parametrize("width", [390, 1280])
def test_every_page_is_reached_by_the_navigation_and_fits_the_screen(
    look: Look, server: RunningServer, width: int
) -> None:
    page = look(server.url, width=width)
    for title in PAGES:
        if width < 960:
            page.get_by_role("button", name="Menu").click()
        go_to(page, title)
        expect(page).to_have_title(f"{title} · SDS-CLIP")
        assert overflow(page) == 0, title


@pytest.mark.parametrize("scheme", ["light", pytest.param("dark", marks=pytest.mark.long)])
@pytest.mark.parametrize("title", PAGES)
def test_no_page_breaks_a_rule_of_accessibility(
    look: Look, server: RunningServer, title: str, scheme: Scheme
) -> None:
    page = look(server.url, scheme=scheme)
    go_to(page, title)
    page.evaluate(AXE.read_text())
    found = page.evaluate(f"axe.run({{runOnly: {RULES}}})")

    assert [(each["id"], each["help"], each["nodes"][0]["html"]) for each in found["violations"]] == []


def test_example_is_matched_by_a_click_and_gives_way_to_ones_own_pictures(
    look: Look, server: RunningServer, pictures: list[Path]
) -> None:
    page = look(server.url)
    caption = "there is a large black circle below a lime hourglass"
    page.get_by_role("button", name=caption).click()
    expect(page.locator(".reading")).to_have_count(1)
    shown = readings(page, 0)
    texts = page.get_by_role("textbox", name="Texts").input_value().splitlines()
    assert texts[0] == caption
    (result,) = answer(server, "match", [HELD_OUT / "ex_177_img_0.png"], texts=texts)["results"]
    expected = sorted(zip(texts, result["probabilities"], strict=True), key=lambda row: -row[1])
    assert shown == [(text, [percent(share)]) for text, share in expected]

    page.get_by_label("Picture files").set_input_files(pictures[1])
    expect(page.get_by_role("button", name="Remove two.png")).to_be_visible()
    expect(page.get_by_role("region", name="Examples")).to_have_count(0)


def test_page_says_what_the_demo_model_knows_where_that_is_served(
    look: Look, server: RunningServer, tmp_path: Path
) -> None:
    page = look(server.url)
    expect(page.get_by_label("Version", exact=True).locator("option")).not_to_have_count(1)
    expect(page.get_by_text("The demo model knows")).to_have_count(0)
    with running_server(tmp_path, "--model", "demo") as demo:
        page = look(demo.url)
        expect(page.get_by_text("The demo model knows")).to_be_visible()
        # The end of the service would cut off what is still on its way.
        page.wait_for_load_state("networkidle")


def test_swapped_words_are_rivals_of_a_caption(
    look: Look, server: RunningServer, pictures: list[Path]
) -> None:
    page = look(server.url)
    page.get_by_label("Picture files").set_input_files(pictures[1])
    page.get_by_role("tab", name="Swap words").click()
    page.get_by_label("Caption").fill("a red circle left of a blue square")
    page.get_by_role("button", name="left", exact=True).click()
    page.get_by_role("button", name="square", exact=True).click()
    page.get_by_label("a red square left of a blue circle").uncheck()
    page.get_by_role("button", name="Match", exact=True).click()
    expect(page.locator(".reading")).to_have_count(1)

    assert {text for text, _ in readings(page, 0)} == {
        "a red circle left of a blue square",
        "a blue circle left of a red square",
        "a blue square left of a red circle",
        "a red circle square of a blue left",
    }
    caption = page.locator(".reading li").filter(has=page.get_by_text("caption", exact=True))
    expect(caption.locator("p")).to_have_text("a red circle left of a blue square")
    won = readings(page, 0)[0][0] == "a red circle left of a blue square"
    expect(page.get_by_text("The caption won" if won else "The caption lost to a rival")).to_be_visible()


def test_broken_picture_has_its_error_and_the_others_their_scores(
    look: Look, server: RunningServer, pictures: list[Path], tmp_path: Path
) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(png()[:200])
    page = look(server.url)
    match(page, [broken, pictures[1]], ["a red circle", "a blue square"])

    assert "ends too early" in page.locator(".reading").first.inner_text()
    assert len(readings(page, 1)) == 2


def test_results_of_a_former_input_are_marked_and_the_code_is_that_of_the_current_one(
    look: Look, server: RunningServer, pictures: list[Path]
) -> None:
    page = look(server.url)
    match(page, pictures, ["a red circle", "a red circle"])
    changed = page.get_by_text("The input has changed")
    expect(changed).to_have_count(0)
    expect(page.get_by_text("1 line is the same as another one")).to_be_visible()
    page.get_by_role("tab", name="curl").click()
    code = page.get_by_label("The request for curl")
    expect(code).to_contain_text("a red circle")

    page.get_by_role("textbox", name="Texts").fill("a blue square")
    expect(changed).to_be_visible()
    expect(code).to_contain_text("a blue square")
    page.get_by_role("button", name="Match", exact=True).click()
    expect(changed).to_have_count(0)
    page.get_by_role("button", name=f"Remove {pictures[0].name}").press("Enter")
    expect(page.get_by_role("button", name="Remove two.png")).to_be_focused()
    expect(changed).to_be_visible()
    page.keyboard.press("Enter")
    expect(page.get_by_role("button", name="Pick pictures")).to_be_focused()


def test_file_that_is_no_picture_is_named(
    look: Look, server: RunningServer, pictures: list[Path], tmp_path: Path
) -> None:
    notes = tmp_path / "notes.txt"
    notes.write_text("no picture")
    page = look(server.url)
    page.get_by_label("Picture files").set_input_files([notes, pictures[1]])
    expect(page.get_by_role("alert")).to_have_text("notes.txt is not a picture, and cannot be used here.")
    expect(page.get_by_role("button", name="Remove two.png")).to_be_visible()


def test_tiny_pictures_are_shown_by_whole_multiples_of_their_pixels(
    look: Look, server: RunningServer, pictures: list[Path]
) -> None:
    page = look(server.url)
    match(page, pictures[1:], ["a red circle"])
    image = page.locator(".reading img")

    expect(image).to_have_css("image-rendering", "pixelated")
    assert image.evaluate("image => [image.width, image.height]") == [192, 144]


def test_the_request_for_curl_gives_the_same_answer(
    look: Look, server: RunningServer, pictures: list[Path]
) -> None:
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    page = look(server.url)
    match(page, pictures, ["@home", "it's `$HOME`"])
    with page.expect_response("**/match") as answered:
        page.get_by_role("button", name="Match", exact=True).click()
    page.get_by_role("tab", name="curl").click()
    command = page.get_by_label("The request for curl").inner_text()
    done = subprocess.run(["sh", "-c", command], cwd=pictures[0].parent, capture_output=True, text=True)

    assert done.stdout == answered.value.text()


def test_colours_are_the_systems_until_the_reader_chooses(look: Look, server: RunningServer) -> None:
    page = look(server.url, scheme="dark")
    expect(page.locator("body")).to_have_css("background-color", "rgb(20, 22, 27)")
    page.get_by_role("button", name="Colours: auto").click()
    expect(page.locator("body")).to_have_css("background-color", "rgb(246, 246, 243)")
    page.reload()
    expect(page.get_by_role("button", name="Colours: light")).to_be_visible()
    expect(page.locator("body")).to_have_css("background-color", "rgb(246, 246, 243)")


def test_the_keyboard_skips_to_the_content(look: Look, server: RunningServer) -> None:
    page = look(server.url)
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    expect(page.get_by_role("button", name="Pick pictures")).to_be_focused()
