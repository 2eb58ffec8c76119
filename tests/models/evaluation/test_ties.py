"""One meaning of a tie, for every metric: the margin is 0, the item is wrong, and it is counted."""

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from sds_clip.models.evaluation.benchmark import Benchmark, run_benchmark
from sds_clip.models.evaluation.caption_choice import CaptionChoice
from sds_clip.models.evaluation.half_truths import HalfTruths
from sds_clip.models.evaluation.items import Item
from sds_clip.models.evaluation.retrieval import in_batch_accuracy, recall_margins
from sds_clip.models.evaluation.sugarcrepe import text_only_margin
from sds_clip.models.evaluation.winoground import Winoground
from sds_clip.models.evaluation.zero_shot import class_margins
from sds_clip.models.images.ref import ImageRef
from tests.models.evaluation.fixed_scorer import FixedScorer
from tests.pictures import save_pictures

WINOGROUND = ("text_score", "image_score", "group_score", "group_match")


def benchmark(kind: str, images: Sequence[Path], captions: int) -> Benchmark:
    """One of three items, the captions of which are numbered."""
    regions = tuple(map(ImageRef, images))
    items = tuple(
        Item(id=name, images=regions, captions=tuple(f"{name} {number}" for number in range(captions)))
        for name in ("won", "tied", "lost")
    )
    if kind == "winoground":
        return Winoground(kind, items, {})
    if kind == "half-truths":
        return HalfTruths(kind, items, {}, ())
    return CaptionChoice(kind, items, {}, positives=2 if kind == "sugarcrepe-pp" else 1)


@pytest.mark.parametrize(
    ("kind", "metrics", "won", "tied", "lost"),
    [
        # In each lost item, one of the comparisons is of equal scores, and another one is lost.
        ("winoground", WINOGROUND[:3], [[3, 1], [1, 3]], [[3, 3], [3, 4]], [[3, 5], [3, 4]]),
        ("winoground", WINOGROUND[3:], [[3, 1], [1, 3]], [[3, 5], [1, 3]], [[3, 5], [3, 4]]),
        ("sugarcrepe", ("acc",), [[2], [1]], [[2], [2]], [[1], [2]]),
        ("coco-order", ("acc",), [[2], [1], [0]], [[2], [2], [1]], [[2], [2], [3]]),
        ("sugarcrepe-pp", ("acc",), [[3], [2], [1]], [[3], [2], [2]], [[2], [1], [2]]),
        ("half-truths", ("acc",), [[3], [2], [1]], [[3], [2], [2]], [[3], [1], [2]]),
        ("half-truths", ("correct_ordering_rate",), [[3], [2], [1]], [[2], [2], [1]], [[2], [2], [3]]),
    ],
)
def test_tie_is_wrong_and_counted_and_a_tie_beside_a_loss_is_none(
    kind: str,
    metrics: Sequence[str],
    won: list[list[float]],
    tied: list[list[float]],
    lost: list[list[float]],
    tmp_path: Path,
) -> None:
    save_pictures(tmp_path, ["0.png", "1.png"])
    images = [tmp_path / f"{number}.png" for number in range(len(won[0]))]
    scores = {
        name: [[float(score) for score in row] for row in rows]
        for name, rows in (("won", won), ("tied", tied), ("lost", lost))
    }
    results = run_benchmark(benchmark(kind, images, len(won)), FixedScorer(scores))
    for name in metrics:
        metric = results.metrics[name]
        assert (metric.value, metric.n, metric.ties) == (pytest.approx(1 / 3), 3, 1), name


def test_text_only_margin_is_zero_at_a_tie() -> None:
    # Cosines of the captions c and c2 and the false one n: s(c, c2), s(c, n), s(c2, n).
    for (both, first, second), sign in (((2, 1, 1), 1), ((2, 2, 1), 0), ((2, 2, 3), -1)):
        margin = text_only_margin(torch.tensor([[9.0, both, first], [both, 9, second], [first, second, 9]]))
        assert (margin > 0) - (margin < 0) == sign


def test_class_that_another_one_equals_is_tied_at_its_rank() -> None:
    # Six classes, of which the first is right: the best other, and the fifth best, are equal to it.
    scores = torch.tensor([[5.0, 5, 1, 1, 1, 1], [5, 9, 9, 9, 9, 5], [5, 4, 4, 4, 4, 4]])
    margins = class_margins(scores, torch.tensor([0, 0, 0]))
    assert [(margin["acc1"], margin["acc5"]) for margin in margins] == [(0, 4), (-4, 0), (1, 1)]


def test_counterpart_that_another_one_equals_is_not_found_first() -> None:
    images = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    texts = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
    own = torch.arange(3)
    first = [margins[0] for margins in recall_margins([(images, own)], lambda: [(texts, own)])]
    assert first == [1, -1, 0]
    accuracy = in_batch_accuracy(images, texts, batch_size=3)
    assert (accuracy.image_to_text, accuracy.text_to_image) == (pytest.approx(1 / 3), pytest.approx(1 / 3))
