import json
from pathlib import Path

import pytest
from PIL import Image

from sds_clip.models.clip.model import Clip
from sds_clip.models.errors import EvaluationError
from sds_clip.models.evaluation.aro import SYMMETRIC_RELATIONS, vg_attribution, vg_relation
from sds_clip.models.evaluation.benchmark import run_benchmark
from sds_clip.models.evaluation.items import box_problem
from sds_clip.models.evaluation.scorers import ClipScorer
from tests.benchmark_sets import case, save_cases
from tests.models.evaluation.fixed_scorer import FixedScorer

RIGHT, WRONG, TIE = [[0.3], [0.2]], [[0.2], [0.3]], [[0.25], [0.25]]


def test_the_symmetric_relations_are_those_of_the_published_code() -> None:
    assert len(SYMMETRIC_RELATIONS) == 157
    assert {"next to", "on the other side of", "adjusting", "around", "wading in"} <= SYMMETRIC_RELATIONS
    assert not {"behind", "to the left of", "on", "under"} & SYMMETRIC_RELATIONS
    assert all(" ".join(name.split()) == name for name in SYMMETRIC_RELATIONS)


def test_relation_figures_are_as_worked_out_by_hand(tmp_path: Path) -> None:
    cases = [case("behind"), case("behind"), case("behind"), case("on"), case("next to"), case("next to")]
    scores = dict(zip("012345", [RIGHT, TIE, WRONG, RIGHT, RIGHT, WRONG], strict=True))
    results = run_benchmark(vg_relation(save_cases(tmp_path, cases)), FixedScorer(scores))
    # The mean of behind (1/3) and on (1); next to is symmetric, and in the figure over all items alone.
    assert results.primary == "macro_acc"
    assert results.metrics["macro_acc"].value == pytest.approx(2 / 3)
    assert results.metrics["acc"].value == 3 / 6
    assert results.metrics["acc"].ties == 1
    assert results.by_tag["next to"]["acc"].value == 1 / 2
    assert results.provenance["macro_tags"] == ["behind", "on"]
    assert results.macro_tags == ("behind", "on")


def test_attribution_figures_are_as_worked_out_by_hand(tmp_path: Path) -> None:
    cases = [case(None) for _ in range(25)] + [case(None, attributes=["old", "red"]) for _ in range(24)]
    scores = {str(number): RIGHT if number < 5 or number == 30 else WRONG for number in range(49)}
    scores["10"] = scores["40"] = TIE
    folder = save_cases(tmp_path, cases, "visual_genome_attribution.json")
    results = run_benchmark(vg_attribution(folder), FixedScorer(scores))
    # A pair with 24 cases counts in `acc` alone, and ["old", "red"] is another pair than ["red", "old"].
    assert results.metrics["macro_acc"].value == pytest.approx(5 / 25)
    assert results.metrics["acc"].value == pytest.approx(6 / 49)
    assert results.metrics["acc"].ties == 2
    assert results.by_tag["red_old"]["acc"].ties == 1
    assert results.provenance["macro_tags"] == ["red_old"]


def test_only_the_box_is_seen(tiny_clip: Clip, tmp_path: Path) -> None:
    """Expected from the crop itself, made with PIL and encoded alone."""
    folder = save_cases(tmp_path, [case(bbox_x=25, bbox_y=0, bbox_w=15, bbox_h=30), case()])
    benchmark = vg_relation(folder)
    with ClipScorer(tiny_clip, tmp_path / "kept") as scorer:
        results = run_benchmark(benchmark, scorer)
    crop = Image.open(folder / "images/7.jpg").convert("RGB").crop((25, 0, 40, 30))
    image = tiny_clip.encode_image(tiny_clip.preprocess(crop)[None])[0]
    true, false = tiny_clip.encode_text(tiny_clip.tokenizer(list(benchmark.items[0].captions)))
    assert results.items[0].margins["text"] == pytest.approx(float(image @ true - image @ false), abs=1e-5)
    assert results.items[0].images[0].box == (25, 0, 15, 30)
    assert results.provenance["unique_images"] == 2


def test_a_box_over_the_edge_is_cropped_as_published_and_counted(tiny_clip: Clip, tmp_path: Path) -> None:
    folder = save_cases(tmp_path, [case(bbox_x=30, bbox_w=20)])
    with ClipScorer(tiny_clip, tmp_path / "kept") as scorer:
        assert run_benchmark(vg_relation(folder), scorer).provenance["boxes_over_the_edge"] == 1


@pytest.mark.parametrize(
    ("box", "message"),
    [
        ({"bbox_x": 40}, "outside the image, which is 40 x 30"),
        ({"bbox_y": -10}, "outside the image"),
        ({"bbox_w": 0}, "is empty"),
        ({"bbox_h": 100}, "more than twice as large as the image"),
    ],
)
def test_a_box_that_holds_nothing_of_the_image_is_refused(
    tmp_path: Path, box: dict[str, int], message: str
) -> None:
    benchmark = vg_relation(save_cases(tmp_path, [case(), case(**box)]))
    with pytest.raises(EvaluationError, match=f"item 1: .*7.jpg: .*{message}"):
        run_benchmark(benchmark, FixedScorer({"0": RIGHT, "1": RIGHT}))


@pytest.mark.parametrize(
    ("box", "size", "reason"),
    [
        ((0, 0, 3000, 2), (1500, 1), "more than 1000 times as long as wide"),
        ((0, 0, 9000, 9000), (8000, 8000), "has more than 64000000 pixels"),
        ((0, 0, 999, 1), (999, 1), None),
    ],
)
def test_a_box_that_would_take_too_much_memory_is_refused(
    box: tuple[int, int, int, int], size: tuple[int, int], reason: str | None
) -> None:
    found = box_problem(box, *size)
    assert found is None if reason is None else reason in str(found)


def test_missing_folder_of_images_is_named(tmp_path: Path) -> None:
    (tmp_path / "visual_genome_relation.json").write_text(json.dumps([case()]))
    with pytest.raises(EvaluationError, match="images"):
        vg_relation(tmp_path)
