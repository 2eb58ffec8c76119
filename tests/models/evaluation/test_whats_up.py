from pathlib import Path

import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment

from sds_clip.models.errors import EvaluationError
from sds_clip.models.evaluation.benchmark import run_benchmark
from sds_clip.models.evaluation.caption_choice import match_margin
from sds_clip.models.evaluation.comparison import compare
from sds_clip.models.evaluation.items import Item
from sds_clip.models.evaluation.results import Results
from sds_clip.models.evaluation.whats_up import coco_spatial, gqa_spatial, whats_up
from tests.benchmark_sets import (
    WHATS_UP_A,
    WHATS_UP_B,
    controlled_entries,
    save_coco_spatial,
    save_controlled,
    save_gqa_spatial,
)
from tests.models.evaluation.fixed_scorer import FixedScorer

RIGHT, WRONG, TIE = ([[first], [0.1], [0.2], [0.1]] for first in (0.3, 0.1, 0.2))
A, B = "Controlled_Images_A", "Controlled_Images_B"
CONTROLLED = {
    # Left, right, on and under of two sets: the first is right; the second is right in left and right alone.
    **{f"{A}/{number}": RIGHT for number in range(6)},
    f"{A}/6": RIGHT,
    f"{A}/7": WRONG,
    # Left, right, in front and behind.
    f"{B}/0": TIE,
    f"{B}/1": RIGHT,
    f"{B}/2": RIGHT,
    f"{B}/3": RIGHT,
}


def shares(results: Results) -> dict[str, tuple[float, int, int]]:
    return {name: (metric.value, metric.n, metric.ties) for name, metric in results.metrics.items()}


def test_pairs_and_sets_are_right_as_a_whole(tmp_path: Path) -> None:
    results = run_benchmark(whats_up(save_controlled(tmp_path)), FixedScorer(CONTROLLED))
    assert (results.primary, results.outcome, results.macro_tags) == ("macro_acc", "text", (A, B))
    assert shares(results) == {
        "macro_acc": ((7 / 8 + 3 / 4) / 2, 12, 1),
        "acc": (10 / 12, 12, 1),
        # Of A, both pairs of the first set and the left and right of the second; of B, in front and behind.
        "pair_acc": (4 / 6, 6, 1),
        "set_acc": (1 / 3, 3, 1),
        # Images that are wrong among four captions are right together.
        "pair_match": (1, 6, 0),
        "set_match": (1, 3, 0),
    }
    of = {
        tag: {name: metric.value for name, metric in found.items()} for tag, found in results.by_tag.items()
    }
    matched = {"pair_match": 1, "set_match": 1}
    assert of[A] == {"acc": 7 / 8, "pair_acc": 3 / 4, "set_acc": 1 / 2} | matched
    assert of[B] == {"acc": 3 / 4, "pair_acc": 1 / 2, "set_acc": 0} | matched
    assert (of[f"{A}: under"], of[f"{B}: left"], of[f"{B}: in-front"]) == (
        {"acc": 0.5},
        {"acc": 0},
        {"acc": 1},
    )


def test_chance_is_that_of_four_captions_for_each_image(tmp_path: Path) -> None:
    results = run_benchmark(whats_up(save_controlled(tmp_path)), FixedScorer(CONTROLLED))
    chances = {name: metric.chance for name, metric in results.metrics.items()}
    of_groups = {"pair_acc": 1 / 16, "set_acc": 1 / 256, "pair_match": 1 / 2, "set_match": 1 / 24}
    assert chances == {"macro_acc": 1 / 4, "acc": 1 / 4} | of_groups


@pytest.mark.parametrize("size", [2, 3, 4])
def test_a_match_is_how_far_the_own_captions_are_ahead_of_the_best_other_assignment(size: int) -> None:
    random = np.random.default_rng(size)
    for _ in range(20):
        scores = random.normal(size=(size, size)) + np.eye(size)

        def best(without: int, scores: np.ndarray = scores) -> float:
            """The best assignment in which an image does not have its own caption."""
            forbidden = scores - 1e6 * np.diag(np.arange(size) == without)
            return float(forbidden[linear_sum_assignment(forbidden, maximize=True)].sum())

        expected = np.trace(scores) - max(best(image) for image in range(size))
        assert match_margin(scores.tolist()) == pytest.approx(expected)


def test_scores_that_know_only_the_image_or_only_the_caption_are_a_tie() -> None:
    levels = [0.1, 0.2, 0.7, 1e-3]
    assert match_margin([levels] * 4) == 0
    assert match_margin([[level] * 4 for level in levels]) == 0


def test_a_set_shows_its_images_and_true_captions(tmp_path: Path) -> None:
    benchmark = whats_up(
        save_controlled(tmp_path, controlled_clevr=controlled_entries(WHATS_UP_B, "bowl", "plate"))
    )
    results = run_benchmark(benchmark, FixedScorer(CONTROLLED))
    (whole,) = [item for item in results.items if "set" in item.correct]
    assert [region.path.name for region in whole.images] == [
        "bowl_left_of_plate.jpeg",
        "bowl_right_of_plate.jpeg",
        "bowl_in-front_of_plate.jpeg",
        "bowl_behind_plate.jpeg",
    ]
    assert whole.captions[0] == "A bowl left of a plate"
    assert (whole.margins, whole.tags) == ({"set": 0, "set_match": pytest.approx(0.2)}, (B,))


def test_pairs_and_sets_are_of_as_many_as_the_authors_divide_by(tmp_path: Path) -> None:
    """A set that lacks an image, in the file or on the disk, counts as wrong for those that it has."""
    entries = [
        *controlled_entries(WHATS_UP_A, "mug", "table"),
        *controlled_entries(WHATS_UP_A, "cup", "shelf"),
    ]
    del entries[5]  # the second set then has left, on and under
    clevr = controlled_entries(WHATS_UP_B, "bowl", "plate")
    folder = save_controlled(tmp_path, controlled_images=entries, controlled_clevr=clevr)
    scores = {f"{A}/{number}": RIGHT for number in range(7)} | {f"{B}/{number}": RIGHT for number in range(4)}
    results = run_benchmark(whats_up(folder), FixedScorer(scores))
    assert results.provenance["incomplete"] == {"pair": 1, "set": 1}
    # 11 images, of which all are right: 5 of 5.5 pairs, and 2 of 2.75 sets.
    assert (results.metrics["pair_acc"].value, results.metrics["set_acc"].value) == (5 / 5.5, 2 / 2.75)
    assert (results.metrics["pair_acc"].n, results.metrics["set_acc"].n) == (6, 3)
    assert results.metrics["set_acc"].chance == pytest.approx(2 / 256 / 2.75)
    assert (results.by_tag[A]["set_acc"].value, results.by_tag[B]["set_acc"].value) == (1 / 1.75, 1)
    assert results.metrics["set_acc"].low < 2 / 2.75 < results.metrics["set_acc"].high

    (folder / "controlled_images/mug_on_table.jpeg").unlink()
    results = run_benchmark(whats_up(folder), FixedScorer(scores), max_bad_share=0.1)
    assert results.provenance["incomplete"] == {"pair": 2, "set": 2}
    assert (results.metrics["pair_acc"].value, results.metrics["set_acc"].value) == (4 / 5, 1 / 2.5)


def test_whole_sets_are_told_to_be_so(tmp_path: Path) -> None:
    results = run_benchmark(whats_up(save_controlled(tmp_path)), FixedScorer(CONTROLLED))
    assert results.provenance["incomplete"] == {"pair": 0, "set": 0}


def test_results_can_be_compared_by_pair_and_by_set(tmp_path: Path) -> None:
    benchmark = whats_up(save_controlled(tmp_path))
    before = run_benchmark(benchmark, FixedScorer(CONTROLLED))
    comparison = compare(before, run_benchmark(benchmark, FixedScorer(CONTROLLED | {f"{A}/7": RIGHT})))
    gained = {name: difference.counts.gained for name, difference in comparison.outcomes.items()}
    assert gained == {"text": 1, "pair": 1, "set": 1, "pair_match": 0, "set_match": 0}
    assert comparison.macro is not None
    assert comparison.macro.difference == pytest.approx(1 / 8 / 2)
    assert comparison.outcomes["set"].chance == 1 / 256


def test_sets_that_go_together_otherwise_are_other_data(tmp_path: Path) -> None:
    one, other = (
        controlled_entries(WHATS_UP_A, "mug", "table"),
        controlled_entries(WHATS_UP_A, "mug", "table"),
    )
    other[0]["image_path"] = "data/controlled_images/cup_left_of_table.jpeg"
    hashes = {
        run_benchmark(
            whats_up(save_controlled(tmp_path / str(number), controlled_images=entries)),
            FixedScorer(CONTROLLED),
        ).provenance["data_hash"]
        for number, entries in enumerate((one, other))
    }
    assert len(hashes) == 2


def test_one_file_is_read_alone_and_the_other_is_missing(tmp_path: Path) -> None:
    benchmark = whats_up(save_controlled(tmp_path) / "controlled_clevr_dataset.json")
    assert benchmark.macro_tags == (B,)
    assert benchmark.settings["files_missing"] == ["controlled_images_dataset"]


def test_images_may_lie_elsewhere(tmp_path: Path) -> None:
    folder = save_controlled(tmp_path / "data")
    for name in ("controlled_images", "controlled_clevr"):
        (folder / name).rename(tmp_path / name)
    (first, *_) = whats_up(folder, tmp_path).items
    assert first.images[0].path == tmp_path / "controlled_images/beer-bottle_left_of_armchair.jpeg"
    folder = save_coco_spatial(tmp_path / "coco")
    (folder / "val2017").rename(tmp_path / "photos")
    assert coco_spatial(folder, tmp_path / "photos").items[0].images[0].path.parent == tmp_path / "photos"


def tags_and_files(items: tuple[Item, ...]) -> list[tuple[str, str]]:
    return [(item.tags[1], item.images[0].path.name) for item in items]


def test_spatial_captions_are_read_with_their_relation_and_image(tmp_path: Path) -> None:
    coco = coco_spatial(save_coco_spatial(tmp_path / "coco"))
    assert coco.macro_tags == ("COCO_QA_one_obj", "COCO_QA_two_obj")
    assert tags_and_files(coco.items) == [
        ("COCO_QA_one_obj: left", "000000000007.jpg"),
        ("COCO_QA_one_obj: top", "000000000008.jpg"),
        ("COCO_QA_one_obj: left", "000000000008.jpg"),
        ("COCO_QA_two_obj: left", "000000000007.jpg"),
        ("COCO_QA_two_obj: below", "000000000009.jpg"),
    ]
    gqa = gqa_spatial(save_gqa_spatial(tmp_path / "gqa"))
    assert tags_and_files(gqa.items) == [
        ("VG_QA_one_obj: bottom", "2317.jpg"),
        ("VG_QA_two_obj: front", "713.jpg"),
        ("VG_QA_two_obj: top", "2317.jpg"),
    ]
    assert gqa.items[1].captions[0] == "A photo of a dog to the front of a cat"


def test_spatial_figures_are_as_worked_out_by_hand(tmp_path: Path) -> None:
    right, wrong, tie = [[0.3], [0.2]], [[0.2], [0.3]], [[0.2], [0.2]]
    one, two = "COCO_QA_one_obj", "COCO_QA_two_obj"
    scores = {f"{one}/0": right, f"{one}/1": wrong, f"{one}/2": tie, f"{two}/0": right, f"{two}/1": right}
    results = run_benchmark(coco_spatial(save_coco_spatial(tmp_path)), FixedScorer(scores))
    assert shares(results) == {"macro_acc": ((1 / 3 + 1) / 2, 5, 1), "acc": (3 / 5, 5, 1)}
    assert {metric.chance for metric in results.metrics.values()} == {1 / 2}
    assert results.by_tag[f"{one}: left"]["acc"].value == 1 / 2


def test_the_file_of_another_benchmark_is_refused_by_name(tmp_path: Path) -> None:
    folder = save_coco_spatial(tmp_path)
    with pytest.raises(
        EvaluationError, match=r"coco_qa_one_obj\.json is not one of controlled_images_dataset\.json"
    ):
        whats_up(folder / "coco_qa_one_obj.json")
