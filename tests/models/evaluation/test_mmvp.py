from pathlib import Path

import pytest

from sds_clip.models.errors import EvaluationError
from sds_clip.models.evaluation.benchmark import run_benchmark
from sds_clip.models.evaluation.mmvp import mmvp_vlm
from tests.benchmark_sets import save_mmvp
from tests.models.evaluation.fixed_scorer import FixedScorer

ALL_RIGHT = [[0.9, 0.1], [0.2, 0.8]]
TEXT_ONLY = [
    [0.3, 0.6],
    [0.2, 0.7],
]  # each image is nearer to its own statement, but both statements to image 2
IMAGE_ONLY = [[0.3, 0.2], [0.6, 0.7]]  # each statement is nearer to its own image


def test_a_pair_is_right_if_both_statements_choose_their_image(tmp_path: Path) -> None:
    scores = {"1-2": TEXT_ONLY, "3-4": IMAGE_ONLY, "5-6": ALL_RIGHT}
    results = run_benchmark(mmvp_vlm(save_mmvp(tmp_path)), FixedScorer(scores))
    assert (results.primary, results.outcome) == ("image_score", "image")
    assert (results.metrics["image_score"].value, results.metrics["image_score"].chance) == (2 / 3, 1 / 4)
    assert {tag: metrics["image_score"].value for tag, metrics in results.by_tag.items()} == {
        "Orientation": 1 / 2,
        "Camera Perspective": 1,
    }
    assert results.metrics["group_score"].value == 1 / 3
    assert results.metrics["group_match"].value == 1


def test_statements_begin_as_the_authors_begin_them(tmp_path: Path) -> None:
    folder = save_mmvp(tmp_path)
    first, second, third = mmvp_vlm(folder).items
    assert first.captions == ("a photo of the dog faces left", "a photo of the dog faces right")
    assert second.captions[0] == "a photo of a fork, tines up"
    assert [region.path for region in third.images] == [
        folder / "MLLM_VLM Images/Camera Perspective/5.jpg",
        folder / "MLLM_VLM Images/Camera Perspective/6.jpg",
    ]


def test_images_may_lie_in_the_readmes_folder_or_elsewhere(tmp_path: Path) -> None:
    folder = save_mmvp(tmp_path)
    (folder / "MLLM_VLM Images").rename(folder / "MMVP_VLM_Images")
    assert mmvp_vlm(folder).items[0].images[0].path == folder / "MMVP_VLM_Images/Orientation/1.jpg"
    (folder / "MMVP_VLM_Images").rename(folder / "photos")
    found = mmvp_vlm(folder / "Questions.csv", folder / "photos")
    assert found.items[0].images[0].path == folder / "photos/Orientation/1.jpg"


def test_the_questions_of_the_other_mmvp_are_refused_by_name(tmp_path: Path) -> None:
    header = ("Index", "Question", "Options", "Correct Answer")
    folder = save_mmvp(tmp_path, [("1", "Is it open?", "(a) Yes (b) No", "(a)")], header)
    with pytest.raises(EvaluationError, match=r"begins with 'Index, Question.*not that of MMVP"):
        mmvp_vlm(folder)
