from pathlib import Path

import pytest

from sds_clip.models.errors import EvaluationError
from sds_clip.models.evaluation.benchmark import run_benchmark
from sds_clip.models.evaluation.half_truths import half_truths
from tests.benchmark_sets import half_truth, save_half_truths
from tests.models.evaluation.fixed_scorer import FixedScorer

# Scores of the full truth, the anchor and the half-truth.
ORDERED = [[0.4], [0.3], [0.2]]
HALF_TRUTH_LAST_BUT_FULL_TRUTH_LOW = [[0.3], [0.4], [0.2]]
HALF_TRUTH_BEFORE_ANCHOR = [[0.4], [0.2], [0.3]]
TIE = [[0.4], [0.3], [0.3]]


def test_figures_are_as_worked_out_by_hand(tmp_path: Path) -> None:
    folder = save_half_truths(
        tmp_path,
        coco_qwen=[half_truth(0), half_truth(1), half_truth(2, "relation"), half_truth(3, "relation")],
        cc3m_qwen=[half_truth(4), half_truth(5, "relation")],
    )
    scores = {
        "coco_qwen/0": ORDERED,
        "coco_qwen/1": HALF_TRUTH_LAST_BUT_FULL_TRUTH_LOW,
        "coco_qwen/2": HALF_TRUTH_BEFORE_ANCHOR,
        "coco_qwen/3": TIE,
        "cc3m_qwen/0": ORDERED,
        "cc3m_qwen/1": ORDERED,
    }
    results = run_benchmark(half_truths(folder), FixedScorer(scores))
    assert (results.primary, results.outcome) == ("macro_acc", "text")
    found = {name: (metric.value, metric.n, metric.ties) for name, metric in results.metrics.items()}
    assert found == {
        "macro_acc": ((2 / 4 + 1) / 2, 6, 1),
        "acc": (4 / 6, 6, 1),
        "correct_ordering_rate": (3 / 6, 6, 1),
    }
    assert [metric.chance for metric in results.metrics.values()] == [1 / 2, 1 / 2, 1 / 6]
    by_tag = {tag: metrics["acc"].value for tag, metrics in results.by_tag.items()}
    assert by_tag == {
        "coco_qwen": 1 / 2,
        "coco_qwen: entity": 1,
        "coco_qwen: relation": 0,
        "cc3m_qwen": 1,
        "cc3m_qwen: entity": 1,
        "cc3m_qwen: relation": 1,
    }
    assert results.by_tag["coco_qwen"]["correct_ordering_rate"].value == 1 / 4
    assert results.provenance["settings"] == {"files_missing": ["coco_mistral"]}


def test_images_are_named_from_the_folder_or_from_another(tmp_path: Path) -> None:
    folder = save_half_truths(tmp_path / "set")
    assert half_truths(folder).items[0].images[0].path == folder / "images/0.jpg"
    (folder / "images").rename(tmp_path / "images")
    (item,) = half_truths(folder / "coco_mistral.jsonl", tmp_path).items
    assert item.images[0].path == tmp_path / "images/2.jpg"
    assert item.captions == ("a woman 2 and a computer", "a woman 2", "a woman 2 and a printer")


def test_empty_file_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match=r"coco_qwen\.jsonl contains no items"):
        half_truths(save_half_truths(tmp_path, coco_qwen=[]))
