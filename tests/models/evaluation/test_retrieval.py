import random

import pytest
import torch
from torch import Tensor

from models.evaluation.errors import EvaluationError
from models.evaluation.retrieval import in_batch_accuracy, retrieval_metrics


def unit(*rows: list[float]) -> Tensor:
    return torch.nn.functional.normalize(torch.tensor(rows), dim=-1)


AXES = torch.eye(3)


def test_perfect_features_retrieve_everything() -> None:
    metrics = retrieval_metrics(AXES, AXES, torch.arange(3), ks=(1, 2))
    assert metrics.image_to_text == {1: 1.0, 2: 1.0}
    assert metrics.text_to_image == {1: 1.0, 2: 1.0}


def test_any_of_several_captions_is_a_hit() -> None:
    images = unit([1.0, 0.0], [0.0, 1.0])
    # Image 0: its first caption is wrong, its second fits best. Image 1: a foreign caption fits better.
    texts = unit([0.0, 1.0], [1.0, 0.1], [0.5, 1.0])
    metrics = retrieval_metrics(images, texts, torch.tensor([0, 0, 1]), ks=(1, 2))
    assert metrics.image_to_text == {1: 0.5, 2: 1.0}
    # Text 0 prefers image 1 (wrong), text 1 image 0 (right), text 2 image 1 (right).
    assert metrics.text_to_image == {1: pytest.approx(2 / 3), 2: 1.0}
    assert (metrics.images, metrics.texts) == (2, 3)


def test_ties_do_not_help() -> None:
    same = unit([1.0, 1.0], [1.0, 1.0], [1.0, 1.0])
    metrics = retrieval_metrics(same, same, torch.arange(3), ks=(1, 2, 3))
    assert metrics.image_to_text == {1: 0.0, 2: 0.0, 3: 1.0}
    assert metrics.text_to_image == {1: 0.0, 2: 0.0, 3: 1.0}


def test_duplicates_tie_exactly_wherever_they_stand() -> None:
    generator = torch.Generator().manual_seed(0)
    features = torch.nn.functional.normalize(torch.randn(1, 61, generator=generator), dim=-1).repeat(1500, 1)
    metrics = retrieval_metrics(features, features, torch.arange(1500), ks=(1, 1499, 1500))
    assert metrics.image_to_text == {1: 0.0, 1499: 0.0, 1500: 1.0}
    assert metrics.text_to_image == {1: 0.0, 1499: 0.0, 1500: 1.0}


def test_two_captions_of_one_image_do_not_compete() -> None:
    images = unit([1.0, 0.0], [0.0, 1.0])
    texts = unit([1.0, 0.0], [1.0, 0.0], [0.0, 1.0])
    assert retrieval_metrics(images, texts, torch.tensor([0, 0, 1]), ks=(1,)).image_to_text == {1: 1.0}


def test_recall_equals_sorting_in_plain_loops() -> None:
    rng = random.Random(3)
    image_of_text = [*range(40), *(rng.randrange(40) for _ in range(80))]
    # Small integers: ties are frequent, and every product is exact.
    images = [[rng.randint(-2, 2) for _ in range(4)] for _ in range(40)]
    texts = [[rng.randint(-2, 2) for _ in range(4)] for _ in range(120)]
    score = [[sum(a * b for a, b in zip(image, text, strict=True)) for text in texts] for image in images]
    metrics = retrieval_metrics(
        torch.tensor(images).float(), torch.tensor(texts).float(), torch.tensor(image_of_text), ks=(1, 5, 10)
    )
    for k in (1, 5, 10):
        # The worst order that the scores allow: among equals, one's own comes last.
        hits = 0
        for image in range(40):
            order = sorted(range(120), key=lambda t: (-score[image][t], image_of_text[t] == image))
            hits += any(image_of_text[text] == image for text in order[:k])
        assert metrics.image_to_text[k] == pytest.approx(hits / 40)
        hits = 0
        for text in range(120):
            order = sorted(range(40), key=lambda i: (-score[i][text], image_of_text[text] == i))
            hits += image_of_text[text] in order[:k]
        assert metrics.text_to_image[k] == pytest.approx(hits / 120)


def test_random_features_are_at_chance() -> None:
    generator = torch.Generator().manual_seed(1)
    images, texts = torch.randn(2, 2000, 64, generator=generator)
    metrics = retrieval_metrics(images, texts, torch.arange(2000), ks=(200,))
    assert metrics.image_to_text[200] == pytest.approx(0.1, abs=0.025)
    assert metrics.text_to_image[200] == pytest.approx(0.1, abs=0.025)


@pytest.mark.parametrize(
    ("image_of_text", "message"),
    [([0, 0, 1], "Image 2 has no caption"), ([0, 1, 3], "not in the set"), ([0, 1, -1], "not in the set")],
)
def test_captions_that_do_not_fit_the_images_are_refused(image_of_text: list[int], message: str) -> None:
    with pytest.raises(EvaluationError, match=message):
        retrieval_metrics(AXES, AXES, torch.tensor(image_of_text))


def test_features_that_are_not_finite_are_refused() -> None:
    with pytest.raises(EvaluationError, match="not finite"):
        retrieval_metrics(AXES, AXES * float("nan"), torch.arange(3))


def test_in_batch_accuracy_counts_each_batch_on_its_own() -> None:
    # Batch 1: both right. Batch 2: its two images are equal, so its texts tie.
    images = unit([1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [1.0, 1.0])
    texts = unit([1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [1.0, 0.9])
    accuracy = in_batch_accuracy(images, texts, batch_size=2)
    assert accuracy.batches == 2
    # Image to text: 1, 1 | 1 (text 2 is nearer), 0. Text to image: 1, 1 | 0, 0 (a tie is wrong).
    assert accuracy.image_to_text == 0.75
    assert accuracy.text_to_image == 0.5


def test_in_batch_accuracy_counts_what_fills_no_batch_within_the_last_whole_one() -> None:
    # Row 3 is measured among rows 1 to 3, of which rows 1 and 2 have counted in the first batch.
    images = unit([1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [0.0, 1.0])
    texts = unit([1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [1.0, 0.0])
    accuracy = in_batch_accuracy(images, texts, batch_size=3)
    assert accuracy.batches == 2
    # Image to text: 1, 1, 1 | 0 (text 1 is nearer). Text to image: 1, 1, 1 | 0 (image 2 is nearer).
    assert (accuracy.image_to_text, accuracy.text_to_image) == (0.75, 0.75)


def test_in_batch_accuracy_ignores_rivals_of_other_batches() -> None:
    pairs = torch.cat([AXES, AXES])
    accuracy = in_batch_accuracy(pairs, pairs, batch_size=3)
    assert (accuracy.image_to_text, accuracy.text_to_image) == (1.0, 1.0)
    with pytest.raises(EvaluationError, match="do not fill one batch of 7"):
        in_batch_accuracy(pairs, pairs, batch_size=7)
