"""How a run is monitored: the contrastive loss and in-batch retrieval on pairs that are not trained on."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from sds_clip.models.clip.encode import encode_images, encode_texts
from sds_clip.models.clip.model import Clip
from sds_clip.models.data.pairs import PairSet
from sds_clip.models.evaluation.retrieval import counted_batches, in_batch_accuracy
from sds_clip.models.losses.contrastive import sigmoid_losses

MAX_PAIRS = 1024  # as the option `val` promises


@torch.no_grad()
def validate(
    clip: Clip,
    pairs: PairSet,
    batch_size: int,
    between: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, float]:
    """Return the mean loss and recall@1 in both directions, over the first pairs (at most 1,024) in batches.

    Every pair counts once, together with as many others as a batch has (`counted_batches`). Each image comes
    with its first caption, in float32. `between(done, total)` is called before the first batch of images,
    and after each.
    """
    count = min(len(pairs), MAX_PAIRS)
    batch_size = min(batch_size, count)
    # Only one batch of decoded images at a time, since those of photographs are large.
    encoded = []
    between(0, count)
    for start in range(0, count, batch_size):
        end = min(start + batch_size, count)
        pictures = [pairs.image(index) for index in range(start, end)]
        encoded.append(encode_images(clip, pictures, batch_size=batch_size))
        between(end, count)
    images = torch.cat(encoded)
    texts = encode_texts(clip, [pairs.sample(index).captions[0] for index in range(count)])
    losses, weights = [], []
    for rows, counted in counted_batches(count, batch_size):
        logits = clip.logit_scale * images[rows] @ texts[rows].T
        of_image, of_text = (_losses(each, clip.logit_bias)[-counted:] for each in (logits, logits.T))
        losses.append((of_image + of_text).mean() / 2)
        weights.append(counted / batch_size)
    share = torch.tensor(weights)
    accuracy = in_batch_accuracy(images, texts, batch_size=batch_size)
    return {
        "validation_clip": ((torch.stack(losses) * share).sum() / share.sum()).item(),
        "validation_image_to_text": accuracy.image_to_text,
        "validation_text_to_image": accuracy.text_to_image,
    }


def _losses(logits: Float[Tensor, "b b"], bias: float | None) -> Float[Tensor, " b"]:
    """Return each row's part of the loss that `sds_clip.models.losses.contrastive` computes."""
    if bias is None:
        return F.cross_entropy(logits, torch.arange(len(logits)), reduction="none")
    return sigmoid_losses(logits + bias).sum(dim=1)
