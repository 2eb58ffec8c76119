import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor

from sds_clip.models.clip.model import Clip
from sds_clip.models.errors import EvaluationError
from sds_clip.models.evaluation.benchmark import run_benchmark
from sds_clip.models.evaluation.comparison import compare
from sds_clip.models.evaluation.retrieval import (
    KS,
    in_batch_accuracy,
    recall_margins,
    retrieval_benchmark,
)
from sds_clip.models.evaluation.scorers import ClipScorer
from tests.plain_metrics import recalls


def unit(*rows: list[float]) -> Tensor:
    return torch.nn.functional.normalize(torch.tensor(rows), dim=-1)


AXES = torch.eye(3)


def batches(features: Tensor, numbers: Tensor, size: int) -> Iterator[tuple[Tensor, Tensor]]:
    for start in range(0, len(features), size):
        yield features[start : start + size], numbers[start : start + size]


def test_margins_are_as_worked_out_by_hand() -> None:
    # One query of image 0, whose texts score 0.6 and 0.3; the others' are 0.6 (a tie), 0.5, 0.4, 0.2, 0.1.
    texts = torch.tensor([[0.6], [0.3], [0.6], [0.5], [0.4], [0.2], [0.1]])
    numbers = torch.tensor([0, 0, 1, 2, 3, 4, 5])
    (margins,) = recall_margins(
        [(torch.tensor([[1.0]]), torch.tensor([0]))], lambda: batches(texts, numbers, 3)
    )
    assert KS == (1, 5, 10)
    # First best other 0.6: a tie is a miss. Fifth best 0.1. There is no tenth: -2.
    assert margins == pytest.approx([0, 0.5, 2.6])
    assert margins[0] == 0


def test_any_blocks_give_the_ranks_of_the_whole() -> None:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 3, (40, 4), generator=generator).float()  # whole numbers: ties are many
    texts = torch.randint(0, 3, (90, 4), generator=generator).float()
    of_text = torch.cat([torch.arange(40), torch.randint(0, 40, (50,), generator=generator)])
    expected = recalls(images, texts, of_text)
    for size in (7, 40, 1000):
        to_image = list(
            recall_margins(
                batches(texts, of_text, size), lambda size=size: batches(images, torch.arange(40), size)
            )
        )
        to_text = list(
            recall_margins(
                batches(images, torch.arange(40), size), lambda size=size: batches(texts, of_text, size)
            )
        )
        for place, k in enumerate(KS):
            assert sum(row[place] > 0 for row in to_image) / 90 == pytest.approx(
                expected[f"image_retrieval_recall@{k}"]
            )
            assert sum(row[place] > 0 for row in to_text) / 40 == pytest.approx(
                expected[f"text_retrieval_recall@{k}"]
            )


def test_duplicates_tie_exactly_wherever_they_stand() -> None:
    generator = torch.Generator().manual_seed(0)
    features = torch.nn.functional.normalize(torch.randn(1, 61, generator=generator), dim=-1).repeat(1500, 1)
    margins = recall_margins(
        [(features, torch.arange(1500))], lambda: batches(features, torch.arange(1500), 400)
    )
    assert set(map(tuple, margins)) == {(0.0, 0.0, 0.0)}


def test_features_that_are_not_finite_are_refused() -> None:
    with pytest.raises(EvaluationError, match="not finite"):
        in_batch_accuracy(AXES, AXES * float("nan"), batch_size=3)


def test_in_batch_accuracy_counts_each_batch_on_its_own() -> None:
    # Batch 1: both right. Batch 2: its two images are equal, so its texts tie.
    images = unit([1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [1.0, 1.0])
    texts = unit([1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [1.0, 0.9])
    accuracy = in_batch_accuracy(images, texts, batch_size=2)
    # Image to text: 1, 1 | 1 (text 2 is nearer), 0. Text to image: 1, 1 | 0, 0 (a tie is wrong).
    assert accuracy.image_to_text == 0.75
    assert accuracy.text_to_image == 0.5


def test_in_batch_accuracy_counts_what_fills_no_batch_within_the_last_whole_one() -> None:
    # Row 3 is measured among rows 1 to 3, of which rows 1 and 2 have counted in the first batch.
    images = unit([1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [0.0, 1.0])
    texts = unit([1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [1.0, 0.0])
    accuracy = in_batch_accuracy(images, texts, batch_size=3)
    # Image to text: 1, 1, 1 | 0 (text 1 is nearer). Text to image: 1, 1, 1 | 0 (image 2 is nearer).
    assert (accuracy.image_to_text, accuracy.text_to_image) == (0.75, 0.75)


def test_in_batch_accuracy_ignores_rivals_of_other_batches() -> None:
    pairs = torch.cat([AXES, AXES])
    accuracy = in_batch_accuracy(pairs, pairs, batch_size=3)
    assert (accuracy.image_to_text, accuracy.text_to_image) == (1.0, 1.0)
    with pytest.raises(EvaluationError, match="do not fill one batch of 7"):
        in_batch_accuracy(pairs, pairs, batch_size=7)


def save_coco(folder: Path, captions: list[list[str]]) -> Path:
    (folder / "images").mkdir(parents=True)
    images, annotations = [], []
    for number, texts in enumerate(captions):
        Image.effect_noise((20, 20), 30 + number).convert("RGB").save(folder / f"images/{number}.png")
        images.append({"id": number, "file_name": f"{number}.png"})
        annotations += [{"image_id": number, "caption": text} for text in texts]
    (folder / "captions.json").write_text(json.dumps({"images": images, "annotations": annotations}))
    return folder


def test_a_model_gets_the_recalls_of_its_features(tiny_clip: Clip, tmp_path: Path) -> None:
    captions = [[f"picture {n} of {k}" for k in range(1 + n % 3)] for n in range(25)]
    captions[3] = captions[4] = ["the same", "another"]  # texts of two images: a tie, and so a miss at 1
    folder = save_coco(tmp_path / "set", captions)
    benchmark = retrieval_benchmark(folder / "captions.json", folder / "images")
    with ClipScorer(tiny_clip, tmp_path / "kept") as scorer:
        results = run_benchmark(benchmark, scorer)
        features = scorer.image_features([item.images[0] for item in benchmark.items])
        texts = scorer.text_features([text for texts in captions for text in texts])
    of_text = torch.tensor([number for number, texts in enumerate(captions) for _ in texts])
    expected = recalls(features, texts, of_text)
    assert {name: metric.value for name, metric in results.metrics.items()} == pytest.approx(expected)
    assert (results.metrics["image_retrieval_recall@1"].n, results.metrics["text_retrieval_recall@1"].n) == (
        len(of_text),
        25,
    )
    assert results.provenance["texts"] == len(of_text)
    chances = {name: metric.chance for name, metric in results.metrics.items()}
    assert [chances[f"image_retrieval_recall@{k}"] for k in KS] == pytest.approx([1 / 25, 5 / 25, 10 / 25])
    total = len(
        of_text
    )  # an image of one, two or three texts is missed where the first k of all are none of them
    missed = [sum((total - k) / total for texts in captions if len(texts) == 1) for k in KS]
    for own in (2, 3):
        for place, k in enumerate(KS):
            one = (total - k) * (total - k - 1) / (total * (total - 1))
            one *= (total - k - 2) / (total - 2) if own == 3 else 1
            missed[place] += one * sum(len(texts) == own for texts in captions)
    assert [chances[f"text_retrieval_recall@{k}"] for k in KS] == pytest.approx([1 - m / 25 for m in missed])
    # Texts and images are items of their own, and a model compared with itself has changed in none of them.
    comparison = compare(results, results)
    assert comparison.outcomes["text_retrieval_recall@5"].counts.n == 25
    assert comparison.headline.difference == 0


def test_a_karpathy_file_is_read_too(tmp_path: Path) -> None:
    Image.new("RGB", (9, 9)).save(tmp_path / "a.jpg")
    (tmp_path / "test.json").write_text(json.dumps([{"image": "a.jpg", "caption": ["a dog", "the dog"]}]))
    (item,) = retrieval_benchmark(tmp_path / "test.json").items
    assert (item.id, item.captions) == ("a.jpg", ("a dog", "the dog"))


def test_images_are_looked_for_in_their_folder_and_a_folder_is_no_captions_file(tmp_path: Path) -> None:
    folder = save_coco(tmp_path / "set", [["a dog"], ["a cat"]])
    found = retrieval_benchmark(folder / "captions.json").items
    assert [item.images[0].path.parent for item in found] == [folder / "images"] * 2
    with pytest.raises(EvaluationError, match=r"set:? is a folder"):
        retrieval_benchmark(folder)
