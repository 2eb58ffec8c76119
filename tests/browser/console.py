"""What the tests of the console share: pages in which nothing may go wrong, and what can be read from them."""

import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from playwright.sync_api import Locator, Page, expect

from sds_clip.app.routes.console import FOLDER
from tools.chromium import CHROMIUM, MISSING

NEEDS_CONSOLE = [
    pytest.mark.skipif(
        CHROMIUM is None and "CI" not in os.environ,
        reason=MISSING,
    ),
    pytest.mark.skipif(
        not (FOLDER / "index.html").exists() and "CI" not in os.environ,
        reason="the console is not built: make console",
    ),
]
TIMEOUT_MS = 180_000
ATTACK = "<img src=x onerror=alert(1)>"
Look = Callable[..., Page]
_AWAY = "net::ERR_(CONNECTION|EMPTY_RESPONSE|INCOMPLETE_CHUNKED)"


class Watch:
    """Everything that goes wrong in a page of a service's console.

    Chromium itself complains about what breaks the page's policy, about answers that are errors, and about a service
    that is away, which is no fault of the page.
    """

    def __init__(self, page: Page, url: str, expected: str | None) -> None:
        self._page = page
        self._own = (f"{url}/", "blob:", "data:")
        self._expected = re.compile("|".join(filter(None, (_AWAY, expected))))
        self._complaints: list[str] = []
        self._asked: list[str] = []
        page.on("console", lambda message: self._complaints.append(message.text))
        page.on("pageerror", lambda error: self._complaints.append(str(error)))
        page.on("dialog", lambda dialog: self._complaints.append(dialog.message))
        page.on("request", lambda request: self._asked.append(request.url))

    def check(self) -> None:
        assert overflow(self._page) <= 0, self._page.url
        unexpected = [text for text in self._complaints if not self._expected.search(text)]
        assert not unexpected, unexpected
        foreign = [url for url in self._asked if not url.startswith(self._own)]
        assert not foreign, foreign


def overflow(page: Page) -> int:
    """By how many pixels the page is wider than its window."""
    found: int = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    return found


def go_to(page: Page, title: str) -> None:
    """Follow the navigation to one of the console's pages, and wait until it is there."""
    page.get_by_role("navigation", name="Pages").get_by_role("link", name=title, exact=True).click()
    expect(page.get_by_role("heading", level=1)).to_have_text(title)
    expect(page.get_by_text("Loading", exact=True)).to_have_count(0)


def sign_in(page: Page, key: str) -> None:
    page.get_by_label("API key").fill(key)
    page.get_by_role("button", name="Sign in").click()


def job_row(page: Page, name: str) -> Locator:
    """The line of a job in the list of jobs."""
    return page.get_by_role("row").filter(has=page.get_by_role("link", name=name, exact=True))


def last_step(page: Page) -> int:
    """The step at which the curve of the loss ends, as its chart tells it to a screen reader."""
    label = page.get_by_role("img", name="Loss by step").get_attribute("aria-label") or ""
    return int(label.rstrip(".").split(" at step ")[1].split(",")[0])


def see_it_grow(page: Page) -> None:
    """Wait until the curve of the loss has more steps than now."""
    label = "document.querySelector('[aria-label^=\"Loss by step\"]').ariaLabel"
    grown = f"before => Number({label}.match(/at step (\\d+)/)[1]) > before"
    page.wait_for_function(grown, arg=last_step(page))


def match(page: Page, pictures: Sequence[Path], texts: Sequence[str]) -> None:
    """Ask Try about some pictures, and wait for the answer."""
    page.get_by_label("Picture files").set_input_files(pictures)
    page.get_by_role("textbox", name="Texts").fill("\n".join(texts))
    page.get_by_role("button", name="Match", exact=True).click()
    expect(page.locator(".reading")).to_have_count(len(pictures))


def readings(page: Page, picture: int) -> list[tuple[str, list[str]]]:
    """What Try says of a picture: each text, and the percentages of each model."""
    found = page.locator(".reading").nth(picture).locator("ol > li")
    return [
        (
            text.locator("p").inner_text(),
            [line.locator(".number").first.inner_text() for line in text.locator(".reading-line").all()],
        )
        for text in found.all()
    ]


def percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def item_cards(page: Page) -> Locator:
    """The items that Results shows, once they have arrived."""
    expect(page.get_by_role("feed")).to_have_attribute("aria-busy", "false")
    return page.get_by_role("article")
