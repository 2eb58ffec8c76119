"""The page /docs in a real browser: it shows the API and calls it, and asks no other host."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import pytest

from tests.app.serverside import running_server
from tests.checkpoints import save_tiny_clip
from tools.chromium import CHROMIUM, MISSING

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason=MISSING)
TIMEOUT_S = 120
# Runs in the page: resolves with the first element that the selector finds, as soon as there is one.
FIND = """
const find = selector => new Promise(found => {
  const look = () => document.querySelector(selector);
  if (look()) return found(look());
  const watcher = new MutationObserver(() => { if (look()) { watcher.disconnect(); found(look()); } });
  watcher.observe(document, {childList: true, subtree: true});
});
"""
OPERATION = "#operations-status-health"
CALL = f"""
(async () => {{ {FIND}
  (await find("{OPERATION} .try-out__btn")).click();
  (await find("{OPERATION} .execute")).click();
  const status = await find("{OPERATION} .live-responses-table .response > .response-col_status");
  const body = await find("{OPERATION} .live-responses-table .response .microlight");
  return {{status: status.innerText.trim(), body: body.innerText, title: document.querySelector(".title").innerText}};
}})()
"""


class Browser:
    """A headless Chromium with one page, told what to do over its DevTools protocol."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._count = 0
        self.events: list[dict[str, Any]] = []

    async def call(self, method: str, **params: object) -> dict[str, Any]:
        self._count += 1
        await self._socket.send_json({"id": self._count, "method": method, "params": params})
        while (message := await self._socket.receive_json()).get("id") != self._count:
            self.events.append(message)
        assert "error" not in message, message
        result: dict[str, Any] = message["result"]
        return result

    async def run(self, script: str) -> Any:
        """The value of a script in the page, once it has one."""
        done = await self.call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in done, done
        return done["result"].get("value")

    def of(self, method: str) -> Iterator[dict[str, Any]]:
        return (event["params"] for event in self.events if event["method"] == method)


@contextlib.asynccontextmanager
async def browser(folder: Path) -> AsyncIterator[Browser]:
    chromium = await asyncio.create_subprocess_exec(
        str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
        "--remote-debugging-port=0", f"--user-data-dir={folder}", "about:blank", stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        assert chromium.stderr is not None
        async for line in chromium.stderr:
            if line.startswith(b"DevTools listening on "):
                break
        port = urlsplit(line.split()[-1].decode()).port
        async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as session:
            async with session.get("/json/list") as listed:
                page = next(target for target in await listed.json() if target["type"] == "page")
            async with session.ws_connect(page["webSocketDebuggerUrl"], max_msg_size=0) as socket:
                yield Browser(socket)
    finally:
        chromium.kill()
        await chromium.communicate()


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("server")
    model = save_tiny_clip(folder / "tiny")
    with running_server(folder, "--model", f"local-dir:{model}") as server:
        yield server.url


async def test_the_page_shows_and_calls_a_route_and_asks_no_other_host(url: str, tmp_path: Path) -> None:
    async with asyncio.timeout(TIMEOUT_S), browser(tmp_path / "profile") as page:
        for domain in ("Network", "Page", "Log", "Runtime", "Audits"):
            await page.call(f"{domain}.enable")
        await page.call("Page.navigate", url=f"{url}/docs#/status/health")
        shown = await page.run(CALL)

    assert "SDS-CLIP" in shown["title"]
    assert shown["status"] == "200"
    assert json.loads(shown["body"]) == {"status": "ok"}
    asked = [event["request"]["url"] for event in page.of("Network.requestWillBeSent")]
    assert f"{url}/health" in asked
    assert [address for address in asked if not address.startswith((f"{url}/", "data:"))] == []
    issues = [event["issue"] for event in page.of("Audits.issueAdded")]
    assert [each for each in issues if each["code"] == "ContentSecurityPolicyIssue"] == []
    assert [event["entry"] for event in page.of("Log.entryAdded")] == []
    assert [event["exceptionDetails"] for event in page.of("Runtime.exceptionThrown")] == []
