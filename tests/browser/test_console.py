"""The console in a real Chromium, against a real service that serves two models."""

import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect

from app.keys import create_key, delete_key
from tests.app.conftest import png
from tests.app.serverside import RunningServer, running_server
from tests.browser.chromium import ATTACK, NEEDS_CONSOLE, WATCH
from tests.checkpoints import save_tiny_clip
from tests.worker.waiting import until

pytestmark = NEEDS_CONSOLE
TIMEOUT_MS = 60_000
PAGES = ["Try", "Jobs", "New job", "Data", "Results", "Versions", "Service"]
AXE = Path(__file__).parents[2] / "console/node_modules/axe-core/axe.min.js"
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]


class Console:
    """A page of the console, and all that went wrong in it."""

    def __init__(self, page: Page, server: RunningServer, models: list[str]) -> None:
        self.page = page
        self.url = server.url
        self.models = models
        self.complaints: list[str] = []
        self.asked: list[str] = []
        page.set_default_timeout(TIMEOUT_MS)
        page.on("console", lambda message: self.complaints.append(message.text))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("dialog", lambda dialog: self.complaints.append(dialog.message))
        page.on("request", lambda request: self.asked.append(request.url))
        page.add_init_script(WATCH)

    def open(self, address: str = "") -> Page:
        self.page.goto(f"{self.url}/{address}")
        expect(self.page.locator("h1")).to_be_visible()
        return self.page

    def answer(self, route: str, pictures: list[Path], **fields: str | list[str]) -> dict[str, Any]:
        """What the service says to the same request."""
        files = [("images", file.read_bytes()) for file in pictures]
        answer: dict[str, Any] = httpx.post(
            f"{self.url}/{route}", files=files, data=fields, timeout=TIMEOUT_MS / 1000
        ).json()
        return answer

    def check(self) -> None:
        """Nothing complained, no rule of the policy was broken, and no other host was asked."""
        assert self.page.evaluate("window.violations") == []
        assert self.complaints == []
        assert [url for url in self.asked if not url.startswith((f"{self.url}/", "blob:", "data:"))] == []


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("models")
    return [f"local-dir:{save_tiny_clip(folder / str(seed), seed=seed)}" for seed in (1, 2)]


@pytest.fixture(scope="module")
def server(models: list[str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    folder = tmp_path_factory.mktemp("server")
    named = [word for model in models for word in ("--model", model)]
    with running_server(folder, *named, SDS_CLIP_DATABASE_URL=f"sqlite:///{folder}/jobs.db") as server:
        yield server


@pytest.fixture
def look(chromium: Browser, server: RunningServer, models: list[str]) -> Iterator[Callable[..., Console]]:
    contexts: list[BrowserContext] = []

    def look(width: int = 1280, scheme: str = "light") -> Console:
        context = chromium.new_context(
            viewport={"width": width, "height": 844},
            color_scheme=scheme,  # type: ignore[arg-type]
        )
        contexts.append(context)
        return Console(context.new_page(), server, models)

    yield look
    for context in contexts:
        context.close()


@pytest.fixture
def pictures(tmp_path: Path) -> list[Path]:
    files = [tmp_path / f"{ATTACK.replace('/', '')}.png", tmp_path / "two.png"]
    for seed, file in enumerate(files):
        file.write_bytes(png(64, 48, seed=seed))
    return files


def rows(page: Page, picture: int) -> list[tuple[str, list[str]]]:
    """What a picture's card says: each text, and the percentages of each model."""
    found = page.locator(".reading").nth(picture).locator("ol > li")
    return [
        (
            row.locator("p").inner_text(),
            [line.locator(".number").first.inner_text() for line in row.locator(".reading-line").all()],
        )
        for row in found.all()
    ]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_two_models_are_matched_and_classified_as_the_service_answers(
    look: Callable[..., Console], pictures: list[Path], width: int, scheme: str
) -> None:
    console = look(width, scheme)
    page, (first, second) = console.open(), console.models
    texts = [ATTACK, "a red circle", "a blue square"]
    page.get_by_label("Picture files").set_input_files(pictures)
    page.get_by_role("textbox", name="Texts").fill("\n".join(texts))
    page.get_by_label("Version", exact=True).select_option(first)
    page.get_by_label("Compare with").select_option(second)
    page.get_by_role("button", name="Match", exact=True).click()
    expect(page.locator(".reading")).to_have_count(2)

    answers = [console.answer("match", pictures, texts=texts, model=model) for model in (first, second)]
    for place in range(2):
        probabilities = [answer["results"][place]["probabilities"] for answer in answers]
        expected = sorted(zip(texts, *probabilities, strict=True), key=lambda row: -row[1])
        shown = [
            (text, [f"{share:.1%}".replace("%", " %") for share in shares]) for text, *shares in expected
        ]
        assert rows(page, place) == shown

    page.get_by_role("tab", name="Matrix").click()
    page.get_by_label("Numbers").select_option("pictures")
    cell = page.get_by_role("row", name="a red circle").first.get_by_role("cell").nth(1)
    assert cell.inner_text() == f"{answers[0]['text_probabilities'][1][1]:.1%}".replace("%", " %")

    page.get_by_role("tab", name="Classify").click()
    page.get_by_role("textbox", name="Labels").fill("circle\nsquare")
    page.get_by_role("button", name="Classify", exact=True).click()
    expect(page.locator(".reading").first.locator("ol > li")).to_have_count(2)
    classified = console.answer("classify", pictures, labels=["circle", "square"], model=first)
    best = classified["results"][0]["predictions"][0]
    assert rows(page, 0)[0][0] == best["label"]
    assert page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth") == 0
    console.check()


@pytest.mark.parametrize("width", [390, 1280])
def test_every_page_is_reached_by_the_navigation_and_fits_the_screen(
    look: Callable[..., Console], width: int
) -> None:
    console = look(width)
    page = console.open()
    for title in PAGES:
        if width < 960:
            page.get_by_role("button", name="Menu").click()
        page.get_by_role("navigation").get_by_role("link", name=title, exact=True).click()
        expect(page.get_by_role("heading", level=1)).to_have_text(title)
        expect(page).to_have_title(f"{title} · SDS-CLIP")
        expect(page.get_by_text("Loading", exact=True)).to_have_count(0)
        overflow = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
        assert page.evaluate(overflow) == 0, title
    console.check()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("title", PAGES)
def test_no_page_breaks_a_rule_of_accessibility(
    look: Callable[..., Console], title: str, scheme: str
) -> None:
    page = look(scheme=scheme).open()
    page.get_by_role("navigation").get_by_role("link", name=title, exact=True).click()
    expect(page.get_by_role("heading", level=1)).to_have_text(title)
    expect(page.get_by_text("Loading", exact=True)).to_have_count(0)
    page.evaluate(AXE.read_text())
    found = page.evaluate(f"axe.run({{runOnly: {RULES}}})")

    assert [(each["id"], each["help"], each["nodes"][0]["html"]) for each in found["violations"]] == []


def test_swapped_words_are_rivals_of_a_caption(look: Callable[..., Console], pictures: list[Path]) -> None:
    console = look()
    page = console.open()
    page.get_by_label("Picture files").set_input_files(pictures[1])
    page.get_by_role("tab", name="Swap words").click()
    page.get_by_label("Caption").fill("a red circle left of a blue square")
    page.get_by_role("button", name="left", exact=True).click()
    page.get_by_role("button", name="square", exact=True).click()
    page.get_by_label("a red square left of a blue circle").uncheck()
    page.get_by_role("button", name="Match", exact=True).click()
    expect(page.locator(".reading")).to_have_count(1)

    assert {text for text, _ in rows(page, 0)} == {
        "a red circle left of a blue square",
        "a blue circle left of a red square",
        "a blue square left of a red circle",
        "a red circle square of a blue left",
    }
    console.check()


def test_broken_picture_has_its_error_and_the_others_their_scores(
    look: Callable[..., Console], pictures: list[Path], tmp_path: Path
) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(png()[:200])
    console = look()
    page = console.open()
    page.get_by_label("Picture files").set_input_files([broken, pictures[1]])
    page.get_by_role("textbox", name="Texts").fill("a red circle\na blue square")
    page.get_by_role("button", name="Match", exact=True).click()
    expect(page.locator(".reading")).to_have_count(2)

    assert "ends too early" in page.locator(".reading").first.inner_text()
    assert len(rows(page, 1)) == 2
    console.check()


def test_tiny_pictures_are_shown_by_whole_multiples_of_their_pixels(
    look: Callable[..., Console], pictures: list[Path]
) -> None:
    console = look()
    page = console.open()
    page.get_by_label("Picture files").set_input_files(pictures[1])
    page.get_by_role("textbox", name="Texts").fill("a red circle")
    page.get_by_role("button", name="Match", exact=True).click()
    image = page.locator(".reading img")

    expect(image).to_have_css("image-rendering", "pixelated")
    assert image.evaluate("image => [image.width, image.height]") == [192, 144]


def test_the_request_for_curl_gives_the_same_answer(
    look: Callable[..., Console], pictures: list[Path]
) -> None:
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    console = look()
    page = console.open()
    page.get_by_label("Picture files").set_input_files(pictures)
    page.get_by_role("textbox", name="Texts").fill("@home\nit's `$HOME`")
    page.get_by_role("button", name="Match", exact=True).click()
    with page.expect_response("**/match") as answered:
        page.get_by_role("button", name="Match", exact=True).click()
    page.get_by_role("tab", name="curl").click()
    command = page.get_by_label("The request for curl").inner_text()
    done = subprocess.run(["sh", "-c", command], cwd=pictures[0].parent, capture_output=True, text=True)

    assert done.stdout == answered.value.text()


def test_colours_are_the_systems_until_the_reader_chooses(look: Callable[..., Console]) -> None:
    console = look(scheme="dark")
    page = console.open()
    expect(page.locator("body")).to_have_css("background-color", "rgb(20, 22, 27)")
    page.get_by_role("button", name="Colours: auto").click()
    expect(page.locator("body")).to_have_css("background-color", "rgb(246, 246, 243)")
    page.reload()
    expect(page.get_by_role("button", name="Colours: light")).to_be_visible()
    expect(page.locator("body")).to_have_css("background-color", "rgb(246, 246, 243)")


def test_the_keyboard_skips_to_the_content(look: Callable[..., Console]) -> None:
    page = look().open()
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    expect(page.get_by_role("button", name="Pick pictures")).to_be_focused()


def test_a_key_signs_in_until_it_is_deleted(chromium: Browser, models: list[str], tmp_path: Path) -> None:
    keys_file = tmp_path / "keys.json"
    key = create_key(keys_file, "phone", ["infer"])
    with running_server(tmp_path, "--model", models[0], "--keys-file", str(keys_file)) as server:
        context = chromium.new_context()
        console = Console(context.new_page(), server, models)
        page = console.open("#/jobs")
        for sent in (key[:-1] + "x", key):
            page.get_by_label("API key").fill(sent)
            page.get_by_role("button", name="Sign in").click()
            if sent != key:
                expect(page.get_by_role("alert")).to_contain_text("key")
        expect(page.get_by_role("heading", level=1)).to_have_text("Jobs")
        assert key not in str(context.cookies()) + page.evaluate("JSON.stringify({...localStorage})")
        assert page.evaluate("document.cookie") == ""

        page.goto(f"{server.url}/#/try")
        page.get_by_role("button", name="Sign out").click()
        expect(page.get_by_label("API key")).to_be_visible()
        page.get_by_label("API key").fill(key)
        page.get_by_role("button", name="Sign in").click()
        expect(page.get_by_role("heading", level=1)).to_have_text("Try")
        delete_key(keys_file, "phone")
        bearer = {"Authorization": f"Bearer {key}"}
        until(lambda: httpx.get(f"{server.url}/models", headers=bearer).status_code == 401)
        page.reload()
        expect(page.get_by_label("API key")).to_be_visible()
        context.close()
