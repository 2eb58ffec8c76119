from collections.abc import Iterator
from typing import Literal

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browser.console import TIMEOUT_MS, Look, Watch
from tests.checkpoints import save_tiny_clip
from tools import chromium as browsers


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """References of two models that answer differently."""
    folder = tmp_path_factory.mktemp("models")
    return [f"local-dir:{save_tiny_clip(folder / str(seed), seed=seed)}" for seed in (1, 2)]


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    expect.set_options(timeout=TIMEOUT_MS)
    with browsers.chromium() as browser:
        yield browser


@pytest.fixture
def look(chromium: Browser) -> Iterator[Look]:
    """Opens a page of a service's console, in a browser that has no session.

    After the test, every page fits its window, has asked no other host, and has complained about nothing but what was
    expected, as "status of 409" for an error of the service.
    """
    opened: list[tuple[Page, Watch]] = []

    def look(
        url: str,
        address: str = "",
        *,
        width: int = 1280,
        scheme: Literal["light", "dark"] = "light",
        expected: str | None = None,
    ) -> Page:
        page = chromium.new_page(viewport={"width": width, "height": 844}, color_scheme=scheme)
        page.set_default_timeout(TIMEOUT_MS)
        opened.append((page, Watch(page, url, expected)))
        page.goto(f"{url}/#/{address}")
        expect(page.get_by_role("heading", level=1)).to_be_visible()
        return page

    yield look
    for page, watch in opened:
        watch.check()
        page.close()
