"""The report in a real browser. The page itself runs no script: a page around it looks into its frame."""

import json
import subprocess
from html import unescape
from pathlib import Path
from typing import Any

import PIL.Image
import pytest

from sds_clip.models.evaluation.comparison import compare
from sds_clip.models.evaluation.report import write_report
from tests.report_runs import attacked, two_runs
from tools.chromium import CHROMIUM, MISSING

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason=MISSING)

LOOK = """<!doctype html><meta charset="utf-8">
<iframe id="page" src="report.html" width="WIDTH" height="900" style="border: 0"></iframe><pre id="found"></pre>
<script>
document.getElementById("page").onload = event => {
  const page = event.target.contentWindow, root = page.document.documentElement, body = page.document.body;
  const right = element => element.getBoundingClientRect().right;
  document.getElementById("found").textContent = JSON.stringify({
    attacked: "attacked" in page || "attacked" in window,
    overflow: root.scrollWidth - root.clientWidth,
    beyond: [...page.document.querySelectorAll("body *")].filter(e => right(e) > WIDTH + 1).map(e => e.tagName),
    drawn: [...page.document.images].map(image => image.complete && image.naturalWidth > 0),
    bars: [...page.document.querySelectorAll("rect.model")].map(bar => bar.getBoundingClientRect().width),
    background: page.getComputedStyle(body).backgroundColor,
    text: page.getComputedStyle(body).color,
    smallest: Math.min(...[...page.document.querySelectorAll("td, th, p, li, small, text")].map(
      element => parseFloat(page.getComputedStyle(element).fontSize))),
    title: page.document.title,
  });
};
</script>"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report with a baseline and text that attacks."""
    folder = tmp_path_factory.mktemp("report")
    before, after = map(attacked, two_runs(folder))
    write_report(folder, after, compare(before, after), before)
    return folder


def chromium(folder: Path, *options: str) -> str:
    """What a headless Chromium prints."""
    command = [
        str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars",
        "--allow-file-access-from-files", f"--user-data-dir={folder / 'profile'}", *options,
    ]  # fmt: skip
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout


def look(folder: Path, width: int, *options: str) -> dict[str, Any]:
    """What the page looks like in a frame of this width."""
    outer = folder / f"look-{width}.html"
    outer.write_text(LOOK.replace("WIDTH", str(width)))
    dom = chromium(folder, "--virtual-time-budget=5000", "--dump-dom", *options, outer.as_uri())
    found: dict[str, Any] = json.loads(unescape(dom.partition('<pre id="found">')[2].partition("</pre>")[0]))
    return found


@pytest.mark.parametrize("width", [360, 1100])
def test_page_fits_the_screen_with_all_its_pictures_and_no_script(folder: Path, width: int) -> None:
    found = look(folder, width)

    assert found["attacked"] is False
    assert (found["overflow"], found["beyond"]) == (0, [])
    assert len(found["drawn"]) == 13
    assert all(found["drawn"])
    assert max(found["bars"]) > 40
    assert found["smallest"] >= 12
    assert "<script>" in found["title"]


def test_page_follows_the_dark_scheme(folder: Path) -> None:
    light, dark = (look(folder, 800, f"--blink-settings=preferredColorScheme={scheme}") for scheme in (1, 0))

    assert (light["background"], light["text"]) == ("rgb(255, 255, 255)", "rgb(27, 29, 34)")
    assert (dark["background"], dark["text"]) == ("rgb(20, 22, 27)", "rgb(233, 235, 240)")


def test_drawing_of_the_page_shows_both_models_bars(folder: Path) -> None:
    file = folder / "page.png"
    chromium(
        folder, "--window-size=1000,1600", "--blink-settings=preferredColorScheme=1", f"--screenshot={file}",
        (folder / "report.html").as_uri(),
    )  # fmt: skip

    colours = PIL.Image.open(file).convert("RGB").getcolors(2**24) or []
    pixels = {colour: count for count, colour in colours}
    assert pixels[0x1F, 0x5F, 0xD0] > 2000
    assert pixels[0xB3, 0x5C, 0x00] > 2000
