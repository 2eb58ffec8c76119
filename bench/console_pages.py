"""Times the console's pages in Chromium: when each is of use, how a list scrolls, and how soon curves react."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

from playwright.sync_api import BrowserContext, Page

from bench.rounds import in_turns

SIZE = {"width": 1280, "height": 900}
USEFUL = """selector => new Promise((resolve, reject) => {
  const end = performance.now() + 30000;
  const look = () => {
    if (performance.now() > end) reject(`${selector} has not come: ${document.body.innerText}`);
    requestAnimationFrame(document.querySelector(selector) ? () => resolve(performance.now()) : look);
  };
  look();
})"""
"""The milliseconds from the navigation to the frame after the one in which the element is there."""
FRAMES = """seconds => new Promise(resolve => {
  const times = [];
  let step = 12;
  const draw = now => {
    times.push(now);
    if (now - times[0] > 1000 * seconds) return resolve(times.slice(1).map((time, n) => time - times[n]));
    const before = scrollY;
    scrollBy(0, step);
    if (scrollY === before) step = -step;
    requestAnimationFrame(draw);
  };
  requestAnimationFrame(draw);
})"""
"""The milliseconds between frames while the page scrolls down and up."""
REACTION = """([selector, value]) => new Promise(resolve => {
  const input = document.querySelector(selector);
  const began = performance.now();
  if (value === null) input.click();
  else { input.value = value; input.dispatchEvent(new Event("input", { bubbles: true })); }
  requestAnimationFrame(() => requestAnimationFrame(() => resolve(performance.now() - began)));
})"""
"""The milliseconds from a change of an input to the frame after the one that draws it."""
ZOOM = "a part is seen closer"
LABELS = "[aria-label^='Loss by step']"


@dataclass(frozen=True)
class Wanted:
    """A page's address, and the element that makes it of use."""

    address: str
    selector: str


@dataclass(frozen=True)
class Scrolling:
    """Milliseconds between frames, and from a click on "Older jobs" to the next page of the list."""

    frames_ms: Sequence[float]
    older_ms: Sequence[float]


@contextmanager
def page_at(context: BrowserContext, url: str, address: str) -> Iterator[Page]:
    """A new page, which finds the console's files in the browser's cache."""
    page = context.new_page()
    page.goto(f"{url}/#/{address}", wait_until="commit")
    yield page
    page.close()


def measure_paints(
    context: BrowserContext, url: str, pages: Mapping[str, Wanted], visits: int
) -> dict[str, list[float]]:
    """Milliseconds until each page has its element."""

    def visit(wanted: Wanted) -> float:
        with page_at(context, url, wanted.address) as page:
            return float(page.evaluate(USEFUL, wanted.selector))

    visited = {name: partial(visit, wanted) for name, wanted in pages.items()}
    return in_turns("visit", visits, visited, warm_up=True)


def measure_scrolling(context: BrowserContext, url: str, seconds: float, pages: int) -> Scrolling:
    """Scroll the list of jobs, and go on to older ones."""
    with page_at(context, url, "jobs") as page:
        page.evaluate(USEFUL, "main tbody tr")
        frames = page.evaluate(FRAMES, seconds)
        older = []
        for _ in range(pages):
            first = page.locator("main tbody tr a").first.get_attribute("href")
            began = page.evaluate("performance.now()")
            page.get_by_role("link", name="Older jobs").click()
            shown = page.evaluate(USEFUL, f'main tbody tr:first-child a:not([href="{first}"])')
            older.append(shown - began)
        return Scrolling(frames, older)


def measure_reactions(context: BrowserContext, url: str, job: str, count: int) -> dict[str, list[float]]:
    """How soon a job's curves are drawn again after a change of how they are drawn, and a part is seen closer."""
    with page_at(context, url, f"jobs/{job}") as page:
        page.evaluate(USEFUL, LABELS)
        found: dict[str, list[float]] = {"smoothing": [], "log scale": [], ZOOM: []}
        for number in range(count):
            smoothing = f"{0.5 + 0.4 * (number % 2):.2f}"
            found["smoothing"].append(page.evaluate(REACTION, [".curves-smoothing input", smoothing]))
            found["log scale"].append(page.evaluate(REACTION, [".curves-log input", None]))
            found[ZOOM].append(_zoom(page))
        return found


def _zoom(page: Page) -> float:
    """Draw over a third of a chart, and wait until the curve ends there; then go back to the whole."""
    chart = page.locator(".chart .u-over").first
    box = chart.bounding_box()
    assert box is not None
    label = page.get_attribute(LABELS, "aria-label")
    page.mouse.move(box["x"] + box["width"] * 0.3, box["y"] + 20)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.6, box["y"] + 30, steps=4)
    began = page.evaluate("performance.now()")
    page.mouse.up()
    changed = f'{LABELS}:not([aria-label="{label}"])'
    took: float = page.evaluate(USEFUL, changed) - began
    chart.dblclick()
    page.evaluate(USEFUL, f'[aria-label="{label}"]')
    return took
