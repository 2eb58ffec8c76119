"""The built site: complete, and nothing in it asks another host."""

import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from tests.docs.commands import DOCS
from tools.chromium import CHROMIUM, MISSING

ROOT = DOCS.parent
# What a browser fetches by itself, by tag. A link that a reader may follow is not among it.
FETCHED = {
    "audio": "src", "embed": "src", "iframe": "src", "img": "src", "image": "href", "input": "src", "link": "href",
    "object": "data", "script": "src", "source": "src", "track": "src", "use": "href", "video": "src",
}  # fmt: skip
IN_CSS = re.compile(r"""url\(\s*["']?([^"')]+)|@import\s+["']([^"']+)""")


class Page(HTMLParser):
    """What a page fetches and links to, and the ids that a link may name."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self.links: list[str] = []
        self.ids: set[str] = set()
        self.styles = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.ids |= {given[name] for name in ("id", "name") if name in given}
        self.styles += given.get("style", "") + ("<style>" if tag == "style" else "")
        if tag == "link" and given.get("rel") in ("canonical", "next", "prev"):
            return
        if FETCHED.get(tag) in given:
            self.fetched.append(given[FETCHED[tag]])
        if tag == "source" and "srcset" in given:
            self.fetched.append(given["srcset"])
        if tag == "a" and "href" in given:
            self.links.append(given["href"])

    def handle_data(self, data: str) -> None:
        if self.lasttag == "style":
            self.styles += data


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("docs") / "site"
    # Not --quiet: with it MkDocs counts no warnings, and --strict lets everything pass.
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    built = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    )
    assert built.returncode == 0, built.stderr
    return folder


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[Path, Page]:
    # The page for unknown addresses names files from the server's root; nobody opens it as a file.
    found = (file for file in site.rglob("*.html") if file.name != "404.html")
    return {file: Page(file.read_text(encoding="utf-8")) for file in found}


def is_of_another_host(address: str) -> bool:
    parts = urlsplit(address)
    return bool(parts.netloc) or parts.scheme in ("http", "https")


def test_every_page_of_the_docs_is_built(site: Path) -> None:
    written = {file.relative_to(DOCS).with_suffix(".html") for file in DOCS.rglob("*.md")}
    assert written
    assert not [page for page in written if not (site / page).is_file()]


def test_no_page_asks_another_host(site: Path, pages: dict[Path, Page]) -> None:
    asked = {
        (file.name, address)
        for file, page in pages.items()
        for address in [*page.fetched, *("".join(found) for found in IN_CSS.findall(page.styles))]
        if is_of_another_host(address)
    }
    asked |= {
        (file.name, "".join(found))
        for file in site.rglob("*.css")
        for found in IN_CSS.findall(file.read_text(encoding="utf-8"))
        if is_of_another_host("".join(found))
    }
    assert not asked


def test_links_lead_to_pages_and_headings_that_are_there(pages: dict[Path, Page]) -> None:
    dead = []
    for file, page in pages.items():
        for address in [*page.links, *page.fetched]:
            parts = urlsplit(address)
            if parts.scheme or parts.netloc:
                continue
            target = (file.parent / unquote(parts.path)).resolve() if parts.path else file
            if not target.is_file() or (
                parts.fragment and target in pages and unquote(parts.fragment) not in pages[target].ids
            ):
                dead.append((file.name, address))
    assert not dead


def test_every_picture_of_the_console_is_shown(site: Path, pages: dict[Path, Page]) -> None:
    shown = {Path(address).name for address in pages[site / "how-to" / "console.html"].fetched}
    taken = {file.name for file in (DOCS / "assets" / "images" / "console").iterdir()}
    assert taken
    assert taken - shown == set()


@pytest.mark.skipif(CHROMIUM is None, reason=MISSING)
def test_the_search_works_without_a_server(site: Path, tmp_path: Path) -> None:
    command = [
        str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
        f"--user-data-dir={tmp_path}", "--virtual-time-budget=60000", "--dump-dom",
    ]  # fmt: skip
    address = f"{(site / 'index.html').as_uri()}?q=GroupMatch"
    shown = subprocess.run([*command, address], capture_output=True, text=True, timeout=120, check=True)
    assert re.search(r"\d+ matching documents", shown.stdout)


def test_every_decision_is_in_the_index() -> None:
    index = (DOCS / "decisions.md").read_text(encoding="utf-8")
    records = sorted(file.name for file in (DOCS / "decisions").glob("*.md"))
    assert records
    assert not [name for name in records if f"(decisions/{name})" not in index]
