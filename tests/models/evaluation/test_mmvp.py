from pathlib import Path

import pytest

from models.errors import EvaluationError
from models.evaluation.benchmark import run_benchmark
from models.evaluation.mmvp import mmvp_vlm
from tests.benchmark_sets import MMVP_ROWS, save_mmvp
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


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (MMVP_ROWS[:3], "has 3 rows, which are not pairs"),
        ([], "has 0 rows"),
        ([MMVP_ROWS[0], MMVP_ROWS[4]], "line 3: the Type is 'Camera Perspective', but .*'Orientation'"),
        ([MMVP_ROWS[0], ("2", "Orientation")], "line 3: the row has 2 fields"),
        ([MMVP_ROWS[0], ("2", "Orientation", "a dog", "right")], "line 3: the row has 4 fields"),
        ([MMVP_ROWS[0], ("two", "Orientation", "a dog")], "line 3: the Question ID must be a number.*'two'"),
        ([MMVP_ROWS[0], MMVP_ROWS[0]], "line 3: the Question ID 1 appears twice"),
        ([MMVP_ROWS[0], ("2", "Orientation", " ")], "line 3: `Statement` must be a text that is not empty"),
        ([("9" * 5000, "Orientation", "a dog"), MMVP_ROWS[1]], "line 2: .* at most 9 digits"),
        (
            [("1", "Orientation", "a" * 200_000), MMVP_ROWS[1]],
            "field larger than field limit.*quotation mark",
        ),
        ([("1", "..", "a"), ("2", "..", "b")], "is not inside"),
        ([("2", "State", "a"), ("3", "State", "b")], "the Question IDs 2 and 3 are no pair"),
        ([("1", "State", "a"), ("3", "State", "b")], "the Question IDs 1 and 3 are no pair"),
    ],
)
def test_wrong_rows_are_refused(tmp_path: Path, rows: list[tuple[str, ...]], message: str) -> None:
    with pytest.raises(EvaluationError, match=message) as raised:
        mmvp_vlm(save_mmvp(tmp_path, rows))
    assert "Questions.csv" in str(raised.value)
    assert len(str(raised.value)) < 1000


def test_the_questions_of_the_other_mmvp_are_refused_by_name(tmp_path: Path) -> None:
    header = ("Index", "Question", "Options", "Correct Answer")
    folder = save_mmvp(tmp_path, [("1", "Is it open?", "(a) Yes (b) No", "(a)")], header)
    with pytest.raises(EvaluationError, match=r"begins with 'Index, Question.*not that of MMVP"):
        mmvp_vlm(folder)


def test_a_folder_without_the_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match=r"Questions\.csv"):
        mmvp_vlm(tmp_path)
