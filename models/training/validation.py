"""What a run is watched by: the contrastive loss and in-batch retrieval on pairs that are not trained on."""

from __future__ import annotations

from collections.abc import Callable

import torch
from open_clip.loss import ClipLoss

from models.clip import Clip
from models.data.pairs import PairSet
from models.evaluation.features import encode_images, encode_texts
from models.evaluation.retrieval import in_batch_accuracy

MAX_PAIRS = 1024


@torch.no_grad()
def validate(
    clip: Clip, pairs: PairSet, batch_size: int, between: Callable[[], None] = lambda: None
) -> dict[str, float]:
    """Means over whole batches of the first pairs, at most 1,024: loss, and recall@1 in both directions.

    Each image comes with its first caption, in float32. `between` is called after each batch of images.
    """
    batch_size = min(batch_size, len(pairs))
    count = min(len(pairs), MAX_PAIRS) // batch_size * batch_size
    # One batch of decoded images at a time: those of photographs are large.
    encoded = []
    for start in range(0, count, batch_size):
        pictures = [pairs.image(index) for index in range(start, start + batch_size)]
        encoded.append(encode_images(clip, pictures, batch_size=batch_size))
        between()
    images = torch.cat(encoded)
    texts = encode_texts(clip, [pairs.sample(index).captions[0] for index in range(count)])
    scale, contrastive = torch.tensor(clip.logit_scale), ClipLoss()
    losses = [
        contrastive(image, text, scale)
        for image, text in zip(torch.split(images, batch_size), torch.split(texts, batch_size), strict=True)
    ]
    accuracy = in_batch_accuracy(images, texts, batch_size=batch_size)
    return {
        "validation_clip": torch.stack(losses).mean().item(),
        "validation_image_to_text": accuracy.image_to_text,
        "validation_text_to_image": accuracy.text_to_image,
    }
