"""What an evaluation job measures, and the files that it is measured on."""

from pathlib import Path

import pytest

from sds_clip.app.datasets.folders import Content
from sds_clip.worker.benchmarks import check_benchmark
from tests.benchmark_sets import CAPTION, case, save_captions, save_cases
from tests.worker.work import Work, result_of


@pytest.mark.parametrize("benchmark", ["coco-order", "retrieval"])
def test_one_folder_of_captions_and_images_is_taken_by_either_benchmark(
    benchmark: str, tmp_path: Path
) -> None:
    save_captions(tmp_path, [[CAPTION], [CAPTION + " today"]])
    (tmp_path / "images").mkdir()
    (tmp_path / "val2014").rename(tmp_path / "images/val2014")
    found = check_benchmark(benchmark, 0.0, Content((tmp_path,), is_folder=True))
    assert (found.ready, found.problems) == (True, ())
    assert found.counts["usable"] == 2


def test_image_of_which_several_boxes_are_shown_counts_once(tmp_path: Path) -> None:
    folder = save_cases(tmp_path, [case(), case(bbox_x=4), case(bbox_w=9)])
    found = check_benchmark("vg-relation", 0.0, Content((folder,), is_folder=True))
    assert found.counts == {"items": 3, "usable": 3, "images": 1}


def test_job_says_that_a_model_beside_a_teacher_is_not_used(
    work: Work, teacher_folder: Path, winoground_id: str
) -> None:
    asked = {"benchmark": "winoground", "data": winoground_id, "scorer": "diffusion", "draws": 1}
    job = work.evaluated(**asked, teacher=str(teacher_folder), model="demo")
    assert result_of(job)["provenance"]["scorer"] == "diffusion"
    messages = [event.message for event in work.events(job)]
    assert "The model is not used: the scorer diffusion measures the teacher." in messages
