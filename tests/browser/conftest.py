from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, expect

from tools import chromium as browsers


@pytest.fixture(scope="module")
def chromium(request: pytest.FixtureRequest) -> Iterator[Browser]:
    """A browser that waits as long as the module's TIMEOUT_MS says."""
    expect.set_options(timeout=request.module.TIMEOUT_MS)
    with browsers.chromium() as browser:
        yield browser
