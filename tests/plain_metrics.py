"""Benchmark metrics by counting ranks and comparing scores: another way than the product's margins, to check it by."""

import torch
from torch import Tensor

KS = (1, 5, 10)


def winoground_shares(scores: Tensor) -> dict[str, tuple[float, int]]:
    """The share of right items and the number of tied ones in each outcome of `scores[item, caption, image]`."""
    scores = scores.double()
    c0i0, c0i1, c1i0, c1i1 = scores[:, 0, 0], scores[:, 0, 1], scores[:, 1, 0], scores[:, 1, 1]
    text, image = (c0i0 > c1i0) & (c1i1 > c0i1), (c0i0 > c0i1) & (c1i1 > c1i0)
    # Tied is what equal scores keep from being right.
    text_tie = (c0i0 >= c1i0) & (c1i1 >= c0i1) & ~text
    image_tie = (c0i0 >= c0i1) & (c1i1 >= c1i0) & ~image
    group_tie = (text | text_tie) & (image | image_tie) & ~(text & image)
    match = (c0i0 - c1i0) + (c1i1 - c0i1)
    found = {
        "text_score": (text, text_tie),
        "image_score": (image, image_tie),
        "group_score": (text & image, group_tie),
        "group_match": (match > 0, match == 0),
    }
    return {name: (float(right.double().mean()), int(tie.sum())) for name, (right, tie) in found.items()}


def recalls(images: Tensor, texts: Tensor, image_of_text: Tensor) -> dict[str, float]:
    """CLIP_benchmark's names; an equal rival ranks ahead."""
    scores = (images.double() @ texts.double().T).float()
    own = image_of_text[None, :] == torch.arange(len(images))[:, None]
    best = scores.masked_fill(~own, -torch.inf).amax(dim=1, keepdim=True)
    of_image = ((scores >= best) & ~own).sum(dim=1)
    of_text = (scores.T.gather(1, image_of_text[:, None]) <= scores.T).sum(dim=1) - 1
    return {
        f"{name}@{k}": float((ranks < k).double().mean())
        for name, ranks in (("image_retrieval_recall", of_text), ("text_retrieval_recall", of_image))
        for k in KS
    }


def accuracies(scores: Tensor, targets: Tensor) -> dict[str, float]:
    """acc1, acc5 and the mean recall over the classes that have an image; an equal rival ranks ahead."""
    ranks = (scores >= scores.gather(1, targets[:, None])).sum(dim=1) - 1
    right = (ranks == 0).double()
    recall = [float(right[targets == label].mean()) for label in targets.unique()]
    return {
        "acc1": float(right.mean()),
        "acc5": float((ranks < 5).double().mean()),
        "mean_per_class_recall": sum(recall) / len(recall),
    }
