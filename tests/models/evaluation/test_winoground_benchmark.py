import json
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from models.clip import Clip
from models.evaluation.benchmark import run_benchmark
from models.evaluation.errors import EvaluationError
from models.evaluation.intervals import wilson
from models.evaluation.scorers import ClipScorer
from models.evaluation.winoground import evaluate_winoground, metrics_by, read_winoground, winoground_metrics
from models.evaluation.winoground_benchmark import (
    NEW_TAGS,
    winoground_benchmark,
    winoground_margins,
    winoground_ties,
)
from tests.models.evaluation.fixed_scorer import FixedScorer

ALL_RIGHT = [[0.9, 0.1], [0.2, 0.8]]
TEXT_ONLY = [[0.3, 0.6], [0.2, 0.7]]
TEXT_TIE = [[0.5, 0.4], [0.5, 0.8]]
ALL_WRONG = [[0.1, 0.9], [0.8, 0.2]]


def save_set(folder: Path, count: int, **fields: list[Any]) -> Path:
    """A set whose images are of `count` * 2 colours; `fields[name][k]` is the k-th item's."""
    (folder / "images").mkdir(parents=True)
    lines = []
    for number in range(count):
        for side in (0, 1):
            colour = (number * 7 % 256, 100 * side, number * 31 % 256)
            Image.new("RGB", (10, 10), colour).save(folder / f"images/ex_{number}_img_{side}.png")
        lines.append(
            {
                "id": number,
                "image_0": f"ex_{number}_img_0",
                "image_1": f"ex_{number}_img_1",
                "caption_0": f"red over blue {number}",
                "caption_1": f"blue over red {number}",
            }
            | {name: values[number] for name, values in fields.items()}
        )
    (folder / "examples.jsonl").write_text("\n".join(json.dumps(line) for line in lines))
    return folder


def test_figures_are_as_worked_out_by_hand(tmp_path: Path) -> None:
    folder = save_set(tmp_path / "set", 4, collapsed_tag=["Object", "Relation", "Relation", "Both"])
    scores = {"0": ALL_RIGHT, "1": TEXT_ONLY, "2": TEXT_TIE, "3": ALL_WRONG}

    results = run_benchmark(winoground_benchmark(folder), FixedScorer(scores))

    assert (results.primary, results.outcome) == ("group_score", "group")
    found = {name: (metric.value, metric.n, metric.ties) for name, metric in results.metrics.items()}
    assert found == {
        "text_score": (0.5, 4, 1),
        "image_score": (0.5, 4, 0),
        "group_score": (0.25, 4, 1),
        "group_match": (0.75, 4, 0),
    }
    assert [metric.chance for metric in results.metrics.values()] == [1 / 4, 1 / 4, 1 / 6, 1 / 2]
    # Margins 1.4, 0.2, 0.4 and -1.4: their mean is 0.15, the sum of their squared deviations 4.03.
    assert [item.margins["group_match"] for item in results.items] == pytest.approx([1.4, 0.2, 0.4, -1.4])
    assert results.metrics["group_match"].d_prime == pytest.approx(0.15 / (4.03 / 3) ** 0.5)
    assert results.by_tag["Relation"]["group_match"].d_prime == pytest.approx(0.3 / 0.02**0.5)
    assert results.by_tag["Object"]["group_match"].d_prime is None
    assert results.metrics["group_score"].d_prime is None
    assert (results.metrics["text_score"].low, results.metrics["text_score"].high) == wilson(2, 4)
    by_tag = {tag: {name: m.value for name, m in metrics.items()} for tag, metrics in results.by_tag.items()}
    assert by_tag == {
        "Both": {"text_score": 0, "image_score": 0, "group_score": 0, "group_match": 0},
        "Object": {"text_score": 1, "image_score": 1, "group_score": 1, "group_match": 1},
        "Relation": {"text_score": 0.5, "image_score": 0.5, "group_score": 0, "group_match": 1},
    }
    assert [item.correct["group"] for item in results.items] == [True, False, False, False]
    assert results.items[0].margins == pytest.approx(
        {"text": 0.7, "image": 0.6, "group": 0.6, "group_match": 1.4}
    )
    assert results.items[2].margins["text"] == 0


def test_margins_and_ties_agree_with_the_metrics_of_random_scores() -> None:
    generator = torch.Generator().manual_seed(0)
    scores = torch.randint(0, 4, (500, 2, 2), generator=generator) / 3  # few values, so that ties are many
    expected = winoground_metrics(scores)
    margins, ties = [winoground_margins(one) for one in scores], [winoground_ties(one) for one in scores]
    for name, share, tied in (
        ("text", expected.text_score, expected.text_ties),
        ("image", expected.image_score, expected.image_ties),
        ("group", expected.group_score, expected.group_ties),
        ("group_match", expected.group_match, expected.group_match_ties),
    ):
        assert sum(margin[name] > 0 for margin in margins) / 500 == pytest.approx(share)
        assert sum(name in tie for tie in ties) == tied


def test_levels_of_captions_and_images_leave_group_match_as_it_is(tmp_path: Path) -> None:
    """The scores are quarters and the levels whole numbers, so that sums are exact."""
    generator = torch.Generator().manual_seed(1)
    scores = torch.randint(-8, 9, (40, 2, 2), generator=generator) / 4
    scores[0] = torch.tensor([[0.5, 0.25], [0.75, 0.5]])  # a tie
    levels = torch.randint(-50, 51, (40, 2, 1), generator=generator) + torch.randint(
        -50, 51, (40, 1, 2), generator=generator
    )
    benchmark = winoground_benchmark(save_set(tmp_path / "set", 40))

    plain, shifted = (
        run_benchmark(benchmark, FixedScorer({str(k): one.tolist() for k, one in enumerate(of)}))
        for of in (scores, scores + levels)
    )

    assert plain.metrics["group_match"] == shifted.metrics["group_match"]
    assert plain.metrics["group_match"].ties >= 1
    assert [item.margins["group_match"] for item in plain.items] == [
        item.margins["group_match"] for item in shifted.items
    ]
    assert plain.metrics["group_score"] != shifted.metrics["group_score"]


def test_a_model_gets_the_figures_of_evaluate_winoground(tiny_clip: Clip, tmp_path: Path) -> None:
    folder = save_set(tmp_path / "set", 30, collapsed_tag=["Object", "Relation"] * 15)
    # The tiny model sees hardly anything of the tenth item's two images, and nothing of equal ones.
    (folder / "images/ex_9_img_1.png").write_bytes((folder / "images/ex_9_img_0.png").read_bytes())
    records = read_winoground(folder)
    expected = evaluate_winoground(tiny_clip, records)

    with ClipScorer(tiny_clip, tmp_path / "kept") as scorer:
        results = run_benchmark(winoground_benchmark(folder), scorer)

    rounded = winoground_metrics(expected.scores.float())
    for name in ("text", "image", "group"):
        assert results.metrics[f"{name}_score"].value == getattr(rounded, f"{name}_score")
        assert results.metrics[f"{name}_score"].ties == getattr(rounded, f"{name}_ties")
    for tag, metrics in metrics_by(expected.scores.float(), [one.collapsed_tag for one in records]).items():
        assert results.by_tag[tag]["group_score"].value == metrics.group_score
    assert results.metrics["image_score"].ties >= 1
    match = results.metrics["group_match"]
    assert (match.value, match.ties) == (rounded.group_match, rounded.group_match_ties)
    assert match.d_prime == pytest.approx(rounded.d_prime)


def test_tags_of_all_kinds_are_told_apart(tmp_path: Path) -> None:
    folder = save_set(
        tmp_path / "set",
        2,
        collapsed_tag=["Relation", ""],
        tag=["Relation", "Scope"],
        secondary_tag=["", "Pragmatics"],
    )
    (folder / NEW_TAGS).write_text(json.dumps({"1": ["Unusual Text", "Non Minimal"], "0": []}))
    tags = [item.tags for item in winoground_benchmark(folder).items]
    assert tags == [
        ("Relation", "tag: Relation"),
        ("untagged", "tag: Scope", "secondary: Pragmatics", "new: Unusual Text", "new: Non Minimal"),
    ]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[1]", "must be"),
        ('{"0": "Unusual"}', "a list of texts"),
        ('{"7": []}', "which the set has no item of"),
    ],
)
def test_a_wrong_tag_file_is_refused(tmp_path: Path, content: str, message: str) -> None:
    folder = save_set(tmp_path / "set", 1)
    (folder / NEW_TAGS).write_text(content)
    with pytest.raises(EvaluationError, match=message):
        winoground_benchmark(folder)


def test_a_missing_image_is_counted_and_its_item_left_out_where_that_is_allowed(tmp_path: Path) -> None:
    folder = save_set(tmp_path / "set", 4)
    (folder / "images/ex_1_img_0.png").unlink()
    benchmark, scorer = winoground_benchmark(folder), FixedScorer({str(k): ALL_RIGHT for k in range(4)})
    with pytest.raises(
        EvaluationError, match=r"1 of 4 items cannot be used:\n  item 1: .*ex_1_img_0"
    ) as raised:
        run_benchmark(benchmark, scorer)
    assert "--max-bad-share 0.25" in str(raised.value)

    results = run_benchmark(benchmark, scorer, max_bad_share=0.25)

    assert results.metrics["group_score"].n == 3
    assert (results.provenance["items"], results.provenance["items_used"]) == (4, 3)
    assert list(results.provenance["items_left_out"]) == ["1"]


def test_results_have_no_seed_where_nothing_is_drawn(tmp_path: Path) -> None:
    benchmark = winoground_benchmark(save_set(tmp_path / "set", 1))
    assert run_benchmark(benchmark, FixedScorer({"0": ALL_RIGHT})).provenance["seed"] is None
