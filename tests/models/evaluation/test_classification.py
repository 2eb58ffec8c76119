import random

import pytest
import torch

from models.evaluation.classification import classification_metrics
from models.evaluation.errors import EvaluationError


def test_accuracies_as_worked_out_by_hand() -> None:
    logits = torch.tensor(
        [
            [9.0, 8.0, 7.0, 6.0, 5.0, 4.0, 3.0],  # class 0: right
            [9.0, 8.0, 7.0, 6.0, 5.0, 4.0, 3.0],  # class 4: fifth
            [9.0, 8.0, 7.0, 6.0, 5.0, 4.0, 3.0],  # class 0: right
            [9.0, 8.0, 7.0, 6.0, 5.0, 4.0, 3.0],  # class 5: sixth
        ]
    )
    metrics = classification_metrics(logits, torch.tensor([0, 4, 0, 5]))
    assert metrics.images == 4
    assert metrics.acc1 == 0.5
    assert metrics.acc5 == 0.75
    # Classes 0 (2 of 2), 4 (0 of 1) and 5 (0 of 1); the four classes without images do not count.
    assert metrics.mean_per_class_recall == pytest.approx(1 / 3)


def test_a_tie_with_another_class_is_wrong() -> None:
    metrics = classification_metrics(torch.zeros(3, 6), torch.tensor([0, 3, 5]))
    assert (metrics.acc1, metrics.acc5, metrics.mean_per_class_recall) == (0, 0, 0)


def test_metrics_equal_plain_loops() -> None:
    rng = random.Random(0)
    logits = [[rng.random() for _ in range(12)] for _ in range(200)]
    targets = [rng.randrange(12) for _ in range(200)]
    top = [sorted(range(12), key=lambda c, row=row: -row[c]) for row in logits]
    recalls = []
    for label in range(12):
        rows = [order[0] == label for order, target in zip(top, targets, strict=True) if target == label]
        recalls.append(sum(rows) / len(rows))
    metrics = classification_metrics(torch.tensor(logits, dtype=torch.float64), torch.tensor(targets))
    assert metrics.acc1 == pytest.approx(sum(o[0] == t for o, t in zip(top, targets, strict=True)) / 200)
    assert metrics.acc5 == pytest.approx(sum(t in o[:5] for o, t in zip(top, targets, strict=True)) / 200)
    assert metrics.mean_per_class_recall == pytest.approx(sum(recalls) / 12)


def test_impossible_input_is_refused() -> None:
    with pytest.raises(EvaluationError, match="not one of the 3 classes"):
        classification_metrics(torch.zeros(1, 3), torch.tensor([3]))
    with pytest.raises(EvaluationError, match="no images"):
        classification_metrics(torch.zeros(0, 3), torch.zeros(0, dtype=torch.int64))
    with pytest.raises(EvaluationError, match="not finite"):
        classification_metrics(torch.full((1, 3), float("nan")), torch.tensor([0]))
