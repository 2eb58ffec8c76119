import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from sds_clip.models.clip.model import Clip
from sds_clip.models.errors import EvaluationError
from sds_clip.models.evaluation.benchmark import run_benchmark
from sds_clip.models.evaluation.metrics import wilson
from sds_clip.models.evaluation.scorers import ClipScorer, cosines
from sds_clip.models.evaluation.winoground import (
    CHANCE,
    NEW_TAGS,
    d_prime,
    winoground_benchmark,
    winoground_margins,
)
from tests.benchmark_sets import save_set
from tests.models.evaluation.fixed_scorer import FixedScorer
from tests.plain_metrics import winoground_shares

# scores[caption][image] of one item, by hand: a row is a caption, a column an image.
ALL_RIGHT = [[0.9, 0.1], [0.2, 0.8]]
TEXT_ONLY = [[0.3, 0.6], [0.2, 0.7]]  # c0 wins image 0, c1 wins image 1; but image 1 wins caption 0
IMAGE_ONLY = [[0.3, 0.2], [0.6, 0.7]]  # image 0 wins caption 0, image 1 caption 1; but c1 wins image 0
ALL_WRONG = [[0.1, 0.9], [0.8, 0.2]]
TEXT_TIE = [[0.5, 0.4], [0.5, 0.8]]  # both captions equal on image 0
IMAGE_TIE = [[0.5, 0.5], [0.2, 0.8]]  # both images equal for caption 0
SAME = [[0.5, 0.5], [0.5, 0.5]]
LEVELS_HIDE_IT = [[0.9, 0.7], [0.3, 0.2]]  # 0.9 + 0.2 > 0.7 + 0.3, but c0 wins image 1, and i0 caption 1
BLIND_TO_CAPTIONS = [[0.1, 0.7], [0.1, 0.7]]
BLIND_TO_IMAGES = [[0.1, 0.1], [0.7, 0.7]]
TIE_AND_LOSS = [[0.5, 0.9], [0.5, 0.8]]  # equal on image 0, but c0 wins image 1: wrong, whatever a tie counts


@pytest.mark.parametrize(
    ("item", "right", "ties"),
    [
        (ALL_RIGHT, {"text", "image", "group", "group_match"}, set()),
        (TEXT_ONLY, {"text", "group_match"}, set()),
        (IMAGE_ONLY, {"image", "group_match"}, set()),
        (ALL_WRONG, set(), set()),
        (TEXT_TIE, {"image", "group_match"}, {"text", "group"}),
        (IMAGE_TIE, {"text", "group_match"}, {"image", "group"}),
        (TIE_AND_LOSS, set(), set()),
        (SAME, set(), {"text", "image", "group", "group_match"}),
        (LEVELS_HIDE_IT, {"group_match"}, set()),
        (BLIND_TO_CAPTIONS, set(), {"text", "group_match"}),  # in the images' scores, one is lost
        (BLIND_TO_IMAGES, set(), {"image", "group_match"}),
    ],
)
def test_one_item_scores_as_worked_out_by_hand(
    item: list[list[float]], right: set[str], ties: set[str]
) -> None:
    margins = winoground_margins(torch.tensor(item))
    assert {name for name, margin in margins.items() if margin > 0} == right
    assert {name for name, margin in margins.items() if margin == 0} == ties


def test_d_prime_is_the_mean_margin_over_its_standard_deviation() -> None:
    # The mean of 1.4, 0.2 and -1.4 is 0.2 / 3, the sum of their squared deviations 3.96 - 0.04 / 3.
    assert d_prime([1.4, 0.2, -1.4]) == pytest.approx(0.2 / 3 / ((3.96 - 0.04 / 3) / 2) ** 0.5)
    assert d_prime([1.4, 1.4]) is None
    assert d_prime([1.4]) is None


def test_random_scores_are_at_chance() -> None:
    scores = torch.rand(20_000, 2, 2, generator=torch.Generator().manual_seed(0))
    margins = [winoground_margins(one) for one in scores]
    for name, chance in CHANCE.items():
        assert sum(margin[name] > 0 for margin in margins) / 20_000 == pytest.approx(chance, abs=0.012)
    assert CHANCE == {"text": 1 / 4, "image": 1 / 4, "group": 1 / 6, "group_match": 1 / 2}


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_scores_that_are_not_finite_are_refused(value: float, tmp_path: Path) -> None:
    benchmark = winoground_benchmark(save_set(tmp_path / "set", 1))
    with pytest.raises(EvaluationError, match="not finite"):
        run_benchmark(benchmark, FixedScorer({"0": [[value, 0.1], [0.2, 0.3]]}))


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
    margins = [winoground_margins(one) for one in scores]
    for metric, (share, tied) in winoground_shares(scores).items():
        name = metric.removesuffix("_score")
        assert sum(margin[name] > 0 for margin in margins) / 500 == pytest.approx(share)
        assert sum(margin[name] == 0 for margin in margins) == tied


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


def test_a_model_is_scored_item_by_item(tiny_clip: Clip, tmp_path: Path) -> None:
    folder = save_set(tmp_path / "set", 30, collapsed_tag=["Object", "Relation"] * 15)
    # The tiny model sees hardly anything of the tenth item's two images, and nothing of equal ones.
    (folder / "images/ex_9_img_1.png").write_bytes((folder / "images/ex_9_img_0.png").read_bytes())
    benchmark = winoground_benchmark(folder)
    with ClipScorer(tiny_clip, tmp_path / "kept") as scorer:
        results = run_benchmark(benchmark, scorer)
        scores = torch.stack(list(scorer.scores(benchmark.items)))

    for item, of_item in zip(benchmark.items[:3], scores, strict=False):
        texts = tiny_clip.encode_text(tiny_clip.tokenizer(list(item.captions)))
        pixels = [tiny_clip.preprocess(Image.open(one.path).convert("RGB")) for one in item.images]
        expected = texts @ tiny_clip.encode_image(torch.stack(pixels)).T
        torch.testing.assert_close(of_item, expected, atol=1e-5, rtol=0)
    found = {name: (metric.value, metric.ties) for name, metric in results.metrics.items()}
    assert found == winoground_shares(scores)
    assert results.metrics["image_score"].ties >= 1
    relation = winoground_shares(scores[1::2])["group_score"]
    assert results.by_tag["Relation"]["group_score"].value == relation[0]


def test_equal_images_and_equal_captions_are_ties(tiny_clip: Clip, tmp_path: Path) -> None:
    folder = save_set(tmp_path / "set", 2)
    (folder / "images/ex_0_img_1.png").write_bytes((folder / "images/ex_0_img_0.png").read_bytes())
    examples = (folder / "examples.jsonl").read_text()
    (folder / "examples.jsonl").write_text(examples.replace("blue over red 1", "red over blue 1"))
    with ClipScorer(tiny_clip, tmp_path / "kept", batch_size=1) as scorer:
        metrics = run_benchmark(winoground_benchmark(folder), scorer).metrics
    assert [metrics[f"{name}_score"].ties for name in ("text", "image")] == [1, 1]
    assert metrics["group_score"].value == 0


def test_cosines_hold_the_caption_before_the_image() -> None:
    images = torch.tensor([[[1.0, 0.0], [0.0, 1.0]]])
    texts = torch.tensor([[[0.6, 0.8], [0.0, 1.0]]])
    # c0 is nearer to image 1 than to image 0.
    assert cosines(texts, images)[0].tolist() == [pytest.approx([0.6, 0.8]), pytest.approx([0.0, 1.0])]


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
        ('{"7": []}', '"7"'),
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
