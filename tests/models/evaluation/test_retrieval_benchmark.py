import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor

from models.clip import Clip
from models.data.errors import DataError
from models.evaluation.benchmark import run_benchmark
from models.evaluation.comparison import compare
from models.evaluation.errors import EvaluationError
from models.evaluation.retrieval import retrieval_metrics
from models.evaluation.retrieval_benchmark import KS, recall_margins, retrieval_benchmark
from models.evaluation.scorers import ClipScorer


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
    expected = retrieval_metrics(images, texts, of_text)
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
            assert sum(row[place] > 0 for row in to_image) / 90 == pytest.approx(expected.text_to_image[k])
            assert sum(row[place] > 0 for row in to_text) / 40 == pytest.approx(expected.image_to_text[k])


def save_coco(folder: Path, captions: list[list[str]]) -> Path:
    (folder / "images").mkdir(parents=True)
    images, annotations = [], []
    for number, texts in enumerate(captions):
        Image.effect_noise((20, 20), 30 + number).convert("RGB").save(folder / f"images/{number}.png")
        images.append({"id": number, "file_name": f"{number}.png"})
        annotations += [{"image_id": number, "caption": text} for text in texts]
    (folder / "captions.json").write_text(json.dumps({"images": images, "annotations": annotations}))
    return folder


def test_a_model_gets_the_figures_of_retrieval_metrics(tiny_clip: Clip, tmp_path: Path) -> None:
    captions = [[f"picture {n} of {k}" for k in range(1 + n % 3)] for n in range(25)]
    captions[3] = captions[4] = ["the same", "another"]  # texts of two images: a tie, and so a miss at 1
    folder = save_coco(tmp_path / "set", captions)
    benchmark = retrieval_benchmark(folder / "captions.json", folder / "images")
    with ClipScorer(tiny_clip, tmp_path / "kept") as scorer:
        results = run_benchmark(benchmark, scorer)
        features = scorer.image_features([item.images[0] for item in benchmark.items])
        texts = scorer.text_features([text for texts in captions for text in texts])
    of_text = torch.tensor([number for number, texts in enumerate(captions) for _ in texts])
    expected = retrieval_metrics(features, texts, of_text)
    for k in KS:
        assert results.metrics[f"image_retrieval_recall@{k}"].value == pytest.approx(
            expected.text_to_image[k]
        )
        assert results.metrics[f"text_retrieval_recall@{k}"].value == pytest.approx(expected.image_to_text[k])
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
    with pytest.raises(EvaluationError, match="set: is a folder; give a captions file"):
        retrieval_benchmark(folder)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"images": []}, "is it another benchmark's file"),
        ({"images": [{"id": 0, "file_name": "a.jpg"}], "annotations": []}, "holds no captions"),
        (
            {
                "images": [{"id": 0, "file_name": "a.jpg"}],
                "annotations": [{"image_id": 0, "caption": ""}],
            },
            "must be a text that is not empty",
        ),
        (3, "is it another benchmark's file"),
        (
            {
                "images": [{"id": 0, "file_name": "a.jpg"}, {"id": 1, "file_name": "b.jpg"}],
                "annotations": [{"image_id": 0, "caption": "a dog"}],
            },
            "1 of 2 images have no caption",
        ),
    ],
)
def test_a_wrong_file_is_refused(tmp_path: Path, content: Any, message: str) -> None:
    (tmp_path / "captions.json").write_text(json.dumps(content))
    with pytest.raises((EvaluationError, DataError), match=message):
        retrieval_benchmark(tmp_path / "captions.json")
