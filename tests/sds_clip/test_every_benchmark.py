"""Every benchmark through `POST /evaluate` and a worker, with the figures of the command line."""

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sds_clip import Client, Job
from sds_clip.cli import main
from sds_clip.models.evaluation.catalog import BENCHMARKS
from tests.benchmark_sets import (
    CAPTION,
    case,
    entry,
    save_captions,
    save_cases,
    save_coco_spatial,
    save_colorswap,
    save_controlled,
    save_files,
    save_folders,
    save_gqa_spatial,
    save_half_truths,
    save_mmvp,
)
from tests.sds_clip.embedded import Running
from tests.training import save_coco
from tests.worker.sets import save_winoground

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="finds processes in /proc"),
]


def winoground(folder: Path) -> None:
    save_winoground(folder)


def vg_relation(folder: Path) -> None:
    folder.mkdir()
    save_cases(folder, [case("behind"), case("behind", bbox_x=22, bbox_w=12), case("on"), case("next to")])


def vg_attribution(folder: Path) -> None:
    folder.mkdir()
    cases = [case(None, true_caption="a red dog and an old cat", bbox_x=x) for x in (1, 9, 17)]
    save_cases(folder, cases, "visual_genome_attribution.json")


def coco_order(folder: Path) -> None:
    folder.mkdir()
    save_captions(folder, [[CAPTION, "the two old men sit on a long bench"], ["a very small dog sleeps"]])


def flickr_order(folder: Path) -> None:
    folder.mkdir()
    save_captions(folder, [[CAPTION], ["three tall women walk down the wet street"]], "flickr30k_test.json")


def sugarcrepe(folder: Path) -> None:
    save_files(folder, swap_obj={"0": entry(0), "4": entry(1)}, add_att={"1": entry(0)})


def sugarcrepe_pp(folder: Path) -> None:
    save_files(folder, swap_object=[entry(n, id=n, caption2=f"one dog {n}") for n in range(3)])


def zero_shot(folder: Path) -> None:
    save_folders(folder, per_class=2)


def retrieval(folder: Path) -> None:
    save_coco(folder)


MAKERS: dict[str, Callable[[Path], object]] = {
    "winoground": winoground,
    "colorswap": save_colorswap,
    "mmvp-vlm": save_mmvp,
    "vg-relation": vg_relation,
    "vg-attribution": vg_attribution,
    "coco-order": coco_order,
    "flickr-order": flickr_order,
    "sugarcrepe": sugarcrepe,
    "sugarcrepe-pp": sugarcrepe_pp,
    "sugarcrepe-pp-text": sugarcrepe_pp,
    "whats-up": save_controlled,
    "coco-spatial": save_coco_spatial,
    "gqa-spatial": save_gqa_spatial,
    "half-truths": save_half_truths,
    "zero-shot": zero_shot,
    "retrieval": retrieval,
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Each benchmark's data, laid out as they are published."""
    found = {}
    for name, make in MAKERS.items():
        found[name] = tmp_path_factory.mktemp("data") / name
        make(found[name])
    return found


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    running = Running(tmp_path_factory.mktemp("up"), SDS_CLIP_KEEP_WARM="true")
    with Client(running.url) as client:
        yield client
    running.close()


@pytest.fixture(scope="module")
def job_of(client: Client, folders: dict[str, Path]) -> Callable[[str], Job]:
    """Sends a benchmark's data and a job that evaluates the demo model on them."""

    def send(name: str) -> Job:
        dataset = client.upload_dataset(folders[name], format=name)
        return client.evaluate(name, str(dataset["id"]), model="demo")

    return send


def test_there_are_data_for_every_benchmark() -> None:
    assert list(MAKERS) == list(BENCHMARKS)


@pytest.mark.long
@pytest.mark.parametrize("name", BENCHMARKS)
def test_figures_are_those_of_the_command_line(
    name: str, job_of: Callable[[str], Job], folders: dict[str, Path], tmp_path: Path
) -> None:
    job = job_of(name)
    result = job.wait().info["result"]
    data = folders[name] / ("captions.json" if name == "retrieval" else "")
    options = ["--data", str(data), "--model", "demo", "--device", "cpu", "--out", str(tmp_path)]
    assert main(["evaluate", name, *options]) == 0
    expected = json.loads((tmp_path / "results.json").read_text())
    assert result["primary"] == expected["primary"]
    assert result["metrics"] == expected["metrics"]
    assert result["provenance"]["data_hash"] == expected["provenance"]["data_hash"]
    progress = job.info["progress"]
    assert 0 < progress["step"] == progress["steps"]
    report = job.report()
    assert name in report
    assert 'src="http' not in report
