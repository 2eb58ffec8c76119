"""Zero-shot classification: top-1, top-5 and mean per-class recall. An equal rival ranks ahead."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from models.evaluation.errors import EvaluationError


@dataclass(frozen=True)
class ClassificationMetrics:
    """Shares in [0, 1]; `mean_per_class_recall` is over the classes that have an image."""

    images: int
    acc1: float
    acc5: float
    mean_per_class_recall: float


def classification_metrics(logits: Float[Tensor, "n c"], targets: Int[Tensor, "n"]) -> ClassificationMetrics:
    """Accuracy of `logits[image, class]` against the class of each image.

    Raises:
        EvaluationError: no images, logits not finite, or a target that is not a class.
    """
    if len(logits) == 0:
        raise EvaluationError("There are no images to classify.")
    if not bool(torch.isfinite(logits).all()):
        raise EvaluationError("Some logits are not finite: the model's weights or its precision are broken.")
    if int(targets.min()) < 0 or int(targets.max()) >= logits.shape[1]:
        raise EvaluationError(f"A target is not one of the {logits.shape[1]} classes.")
    ranks = (logits >= logits.gather(1, targets[:, None])).sum(dim=1) - 1
    right = (ranks == 0).double()
    images = torch.bincount(targets, minlength=logits.shape[1])
    recall = (
        torch.bincount(targets, weights=right, minlength=logits.shape[1])[images > 0] / images[images > 0]
    )
    return ClassificationMetrics(
        images=len(logits),
        acc1=float(right.mean()),
        acc5=float((ranks < 5).double().mean()),
        mean_per_class_recall=float(recall.mean()),
    )
