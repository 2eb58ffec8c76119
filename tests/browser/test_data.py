"""The console's page Data in a real Chromium, against a whole running system, whose worker checks what is uploaded."""

import io
import itertools
import tarfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import Locator, Page, expect

from sds_clip.app.schemas.datasets import FORMATS
from tests.app.conftest import png
from tests.browser.console import ATTACK, NEEDS_CONSOLE, Look
from tests.sds_clip.embedded import Running, until

pytestmark = [pytest.mark.slow, *NEEDS_CONSOLE]
SLOW_BYTES_PER_S = 100_000


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="module")
def system(folder: Path) -> Iterator[Running]:
    with closing(Running(folder, SDS_CLIP_DATASET_ROOTS=str(folder))) as running:
        yield running


def pairs() -> dict[str, bytes]:
    """Eight images with captions. Names and captions are hostile, one image is cut short, and one is tiny."""
    files = {}
    for number in range(8):
        name = f'{number} ">{ATTACK}'.replace("/", "")
        image = png(40, 30) if number == 1 else png(200, 150 + number, seed=number)
        files[f"{name}.png"] = image[:100] if number == 3 else image
        files[f"{name}.txt"] = f"{ATTACK} caption {'word ' * number}".encode()
    return files


def save_archive(file: Path) -> Path:
    with tarfile.open(file, "w") as archive:
        for name, content in pairs().items():
            entry = tarfile.TarInfo(f"folder/{name}")
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return file


def slow_down(page: Page, bytes_per_s: int) -> None:
    network = page.context.new_cdp_session(page)
    network.send("Network.enable")
    network.send(
        "Network.emulateNetworkConditions",
        {"offline": False, "latency": 0, "downloadThroughput": -1, "uploadThroughput": bytes_per_s},
    )


def datasets(system: Running, **query: str) -> dict[str, dict[str, Any]]:
    listed = httpx.get(f"{system.url}/datasets", params=query, timeout=60).json()["data"]
    return {each["name"]: each for each in listed}


def delete(page: Page) -> Locator:
    """Press Delete, and then Delete in the dialog, which is returned."""
    page.get_by_role("button", name="Delete").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_role("button", name="Delete").click()
    return dialog


def numbers(page: Page, title: str) -> list[tuple[str, str]]:
    """The rows of a histogram's table."""
    card = page.get_by_role("figure", name=title).or_(page.locator("figure").filter(has_text=title))
    card.get_by_text("Numbers").click()
    rows = card.locator("tbody tr").all()
    return [(row.locator("th").inner_text(), row.locator("td").inner_text()) for row in rows]


def expected_numbers(histogram: dict[str, list[int]]) -> list[tuple[str, str]]:
    edges, counts = histogram["edges"], histogram["counts"]
    labels = [
        str(first) if first == last - 1 else f"{first}–{last - 1}"
        for first, last in itertools.pairwise(edges)
    ]
    return list(zip(labels, map(str, counts), strict=True))


@pytest.mark.parametrize("width", [pytest.param(390, marks=pytest.mark.long), 1280])
def test_archive_is_uploaded_checked_looked_at_and_deleted(
    look: Look, system: Running, folder: Path, width: int
) -> None:
    name = f"hostile-{width}"
    page = look(system.url, "data", width=width, expected="status of 422")
    page.get_by_role("link", name="Add data").click()
    page.get_by_label("Archive", exact=True).set_input_files(save_archive(folder / f"{name}.tar"))
    expect(page.get_by_label("Name")).to_have_value(name)
    page.get_by_label("Unusable samples allowed").fill("20")

    slow_down(page, SLOW_BYTES_PER_S)
    page.get_by_role("button", name="Upload", exact=True).click()
    progress = page.get_by_label("Upload", exact=True)
    expect(progress).to_contain_text("KiB of ")
    expect(progress).to_contain_text("KiB a second · ")
    expect(progress).to_contain_text("left")
    progress.get_by_role("button", name="Cancel the upload").click()
    expect(page.get_by_text("The upload was cancelled")).to_be_visible()
    assert name not in datasets(system)

    slow_down(page, -1)
    page.get_by_role("button", name="Upload", exact=True).click()
    expect(page.get_by_role("heading", level=1)).to_have_text(name)
    check = page.get_by_role("region", name="The check")
    expect(check).to_contain_text(
        "1 of 8 samples (12.5 %) cannot be used, and is left out: up to 20.0 % may be unusable."
    )
    problems = check.get_by_label("Images that cannot be read").get_by_role("listitem")
    dataset = datasets(system)[name]
    expect(problems).to_have_text([problem["message"] for problem in dataset["problems"]])

    samples = page.get_by_role("region", name="Samples").locator("li.data-sample")
    expect(samples).to_have_count(8)
    listed = httpx.get(f"{system.url}/datasets/{dataset['id']}/samples", timeout=60).json()["data"]
    for sample, shown in zip(listed, samples.all(), strict=True):
        assert ATTACK in sample["captions"][0]
        expect(shown).to_contain_text(sample["id"])
        expect(shown).to_contain_text(sample["captions"][0])
    expect(samples.nth(3)).to_contain_text("This picture cannot be shown.")
    tiny = samples.nth(1).locator("img")
    expect(tiny).to_have_css("image-rendering", "pixelated")
    assert tiny.evaluate("image => [image.width, image.height]") == [120, 90]
    assert tiny.evaluate("image => image.naturalWidth") == 40

    assert numbers(page, "Words of each caption") == expected_numbers(dataset["statistics"]["caption_words"])
    sides = expected_numbers(dataset["statistics"]["image_longer_side"])
    assert numbers(page, "Longer side of each image") == sides
    expect(page.get_by_role("link", name="Train on it")).to_have_attribute(
        "href", f"#/new?data={dataset['id']}"
    )

    delete(page)
    expect(page.get_by_role("heading", level=1)).to_have_text("Data")
    expect(page.get_by_role("link", name=name)).to_have_count(0)
    assert name not in datasets(system)
    page.goto(f"{system.url}/#/data/{dataset['id']}")
    expect(page.get_by_role("region", name="The check")).to_contain_text("was deleted")


def test_wrong_file_has_the_services_words_at_its_field(look: Look, system: Running, folder: Path) -> None:
    wrong = folder / "wrong.zip"
    wrong.write_bytes(b"no archive" * 100)
    page = look(system.url, "data?add=1", expected="status of 422")
    expect(page.get_by_label("Format", exact=True).locator("option")).to_have_text(list(FORMATS))
    field = page.get_by_label("Archive", exact=True)
    field.set_input_files(wrong)
    page.get_by_role("button", name="Upload", exact=True).click()

    form = {"format": "pairs"}
    answer = httpx.post(f"{system.url}/datasets", data=form, files={"file": wrong.read_bytes()}, timeout=60)
    said = answer.json()["error"]["message"]
    expect(page.locator(".field-error")).to_have_text(said)
    described = field.get_attribute("aria-describedby") or ""
    assert said in [page.locator(f"id={each}").inner_text() for each in described.split()]
    expect(field).to_have_attribute("aria-invalid", "true")

    page.get_by_label("Name").fill("no name")
    expect(page.locator(".field-error")).to_have_count(0)
    page.get_by_role("button", name="Upload", exact=True).click()
    expect(page.get_by_label("Name")).to_have_attribute("aria-invalid", "true")


def test_files_on_the_server_are_registered_and_kept_while_a_job_needs_them(
    look: Look, system: Running, folder: Path
) -> None:
    (folder / "registered").mkdir()
    for name, content in pairs().items():
        (folder / "registered" / name).write_bytes(content)
    page = look(system.url, "data?add=1", expected="status of 4(03|09|22)")
    page.get_by_role("tab", name="Files on the server").click()
    path = page.get_by_label("Path on the server")
    path.fill("/etc")
    page.get_by_role("button", name="Register").click()
    expect(path).to_have_attribute("aria-invalid", "true")
    path.fill(str(folder / "registered"))
    page.get_by_label("Name").fill("registered")
    page.get_by_label("Unusable samples allowed").fill("12.5")
    page.get_by_role("button", name="Register").click()
    expect(page.get_by_role("region", name="The check")).to_contain_text("is left out")

    spec = {
        "training_data": "registered",
        "objective": "clip",
        "hyperparameters": {"steps": 10**6, "batch_size": 4},
    }
    job = httpx.post(f"{system.url}/finetune", json=spec, timeout=60).json()["id"]
    refused = delete(page)
    expect(refused.get_by_role("alert")).to_contain_text(job)
    refused.get_by_role("button", name="Keep it").click()
    httpx.post(f"{system.url}/jobs/{job}/cancel", timeout=60)
    until(lambda: httpx.get(f"{system.url}/jobs/{job}", timeout=60).json()["status"] == "cancelled")
    delete(page)
    expect(page.get_by_role("heading", level=1)).to_have_text("Data")
    assert (folder / "registered").is_dir()
