"""Take the pictures of the console: `make screenshots`.

A real system is started in a folder of its own. It distils the demo teacher, trains the control, evaluates the base and
the new version, and promotes the new one (tools/console_story.py). Chromium takes a picture of each page meanwhile, in
light and dark, on a wide screen and on a phone.
"""

import io
import tempfile
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser, Page, expect

from sds_clip import Client
from sds_clip.demo.load import Load, asks
from tests.sds_clip.embedded import Running
from tools.chromium import chromium
from tools.console_story import CAPTIONS, PICTURE, REASON, train_and_measure, train_longer

OUT = Path(__file__).parents[1] / "docs" / "assets" / "images" / "console"
WIDTHS = (1280, 390)
SCHEMES = ("light", "dark")
COLOURS = 192
LEAST_HEIGHT = 520
TIMEOUT_MS = 120_000
CALM_MS = 500
"""In this time, charts and pictures that have arrived are drawn."""
WATCHED_MS = 12_000
"""How long the page Service has watched the load."""
END_OF_CONTENT = "Math.ceil(document.querySelector('main').getBoundingClientRect().bottom)"


@dataclass(frozen=True)
class Picture:
    """A page, what must be seen on it, and how much of a long page is shown."""

    name: str
    address: str
    shows: str
    prepare: Callable[[Page], None] = lambda page: None
    height: int = 1400


def match(page: Page) -> None:
    page.get_by_label("Picture files").set_input_files(PICTURE)
    page.get_by_role("textbox", name="Texts").fill("\n".join(CAPTIONS))
    page.get_by_label("Compare with").select_option("candidate")
    page.get_by_role("button", name="Match", exact=True).click()
    expect(page.locator(".reading")).to_have_count(1)


def promote(page: Page) -> None:
    page.get_by_role("button", name="Promote…").click()
    page.get_by_label("Reason").fill(REASON)
    expect(page.get_by_role("button", name="Promote to default")).to_be_enabled()


def tick_control(page: Page) -> None:
    page.get_by_label("Train the control too").check()
    expect(page.get_by_role("complementary", name="Check").get_by_role("status")).to_have_text("Checked")
    page.evaluate("scrollTo(0, 0)")


def tick_both(page: Page) -> None:
    for name in ("winoground-base", "winoground-candidate"):
        page.get_by_label(f"Compare {name}").check()


def scroll_to_items(page: Page) -> None:
    expect(page.get_by_role("article")).not_to_have_count(0)
    page.get_by_role("heading", name="Items", exact=True).evaluate("heading => heading.scrollIntoView()")


def watch(page: Page) -> None:
    page.wait_for_timeout(WATCHED_MS)


COMPARISON = "results/winoground-candidate/vs/winoground-base"
BEFORE = (
    Picture("try", "try", "Compare with", match),
    Picture("new-job", "new?from=distilled", "Before it starts", tick_control),
    Picture("promotion", "versions/candidate", "Promote…", promote, height=1100),
)
"""Pictures that are taken before the new version is promoted."""
AFTER = (
    Picture("versions", "versions", "Lineage", height=1100),
    Picture("job", "jobs/distilled?with=distilled-control", "Curves", height=1185),
    Picture("data", "data", "train-pairs", height=900),
    Picture("data-set", "data/winoground", "Samples", height=1200),
    Picture("results", "results", "winoground-candidate", tick_both, height=900),
    Picture("comparison", COMPARISON, "All items"),
    Picture(
        "flipped-items",
        f"{COMPARISON}?flip=wrong_to_right&tag=relation",
        "Items",
        scroll_to_items,
        height=960,
    ),
)
WHILE_TRAINING = (
    Picture("service", "service", "Since the process started", watch),
    Picture("jobs", "jobs", "longer", height=900),
)


def main() -> None:
    OUT.mkdir(exist_ok=True)
    with (
        tempfile.TemporaryDirectory(prefix="sds-clip-screenshots-") as folder,
        closing(Running(Path(folder))) as system,
        Client(system.url) as client,
        chromium() as browser,
    ):
        version = train_and_measure(client, Path(folder))
        take(browser, system.url, BEFORE)
        client.promote(version, reason=REASON, wait_s=60)
        take(browser, system.url, AFTER)
        train_longer(client)
        with Load(system.url, asks(PICTURE, CAPTIONS)):
            take(browser, system.url, WHILE_TRAINING)
    sizes = [file.stat().st_size for file in OUT.glob("*.png")]
    print(f"{OUT}: {len(sizes)} pictures, {sum(sizes) / 1e6:.1f} MB")


def take(browser: Browser, url: str, pictures: tuple[Picture, ...]) -> None:
    expect.set_options(timeout=TIMEOUT_MS)
    for picture in pictures:
        for width in WIDTHS:
            for scheme in SCHEMES:
                file = OUT / f"{picture.name}-{width}-{scheme}.png"
                page = browser.new_page(
                    viewport={"width": width, "height": picture.height},
                    color_scheme=scheme,  # type: ignore[arg-type]
                    reduced_motion="reduce",
                )
                page.set_default_timeout(TIMEOUT_MS)
                file.write_bytes(small(photograph(page, f"{url}/#/{picture.address}", picture)))
                page.close()


def photograph(page: Page, address: str, picture: Picture) -> bytes:
    """The window, without what is empty below the page."""
    page.goto(address)
    expect(page.locator("main").get_by_text(picture.shows).first).to_be_visible()
    picture.prepare(page)
    expect(page.get_by_text("Loading", exact=True)).to_have_count(0)
    page.wait_for_timeout(CALM_MS)
    assert page.viewport_size is not None
    size = page.viewport_size
    height = min(size["height"], max(LEAST_HEIGHT, page.evaluate(END_OF_CONTENT)))
    return page.screenshot(clip={"x": 0, "y": 0, "width": size["width"], "height": height})


def small(png: bytes) -> bytes:
    buffer = io.BytesIO()
    image = Image.open(io.BytesIO(png)).convert("RGB")
    # A median cut would lose the colours that only a small mark has.
    few = image.quantize(COLOURS, Image.Quantize.MAXCOVERAGE, kmeans=1, dither=Image.Dither.NONE)
    few.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


if __name__ == "__main__":
    main()
