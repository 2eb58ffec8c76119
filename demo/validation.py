"""What a training run logs: in-batch retrieval and Winoground scores on validation combinations."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from open_clip.model import CLIP, CustomTextCLIP
from open_clip.tokenizer import HFTokenizer
from torch import Tensor

from sds_clip.demo.render import render
from sds_clip.demo.sets import RETRIEVAL_BATCH, retrieval_set
from sds_clip.demo.student import pixels_to_input
from sds_clip.demo.winoground_sets import ITEMS_PER_KIND, KINDS, winoground_items
from sds_clip.demo.world import Split


@dataclass(frozen=True)
class ValidationSet:
    """Inputs ready for the model; an item's two images, and its two captions, are adjacent."""

    images: Float[Tensor, "pairs 3 h w"]
    tokens: Int[Tensor, "pairs context"]
    winoground_images: Float[Tensor, "pictures 3 h w"]
    winoground_tokens: Int[Tensor, "sentences context"]
    kinds: list[str]


def load_validation(
    tokenizer: HFTokenizer,
    split: Split = Split.VALIDATION,
    *,
    pair_count: int = 512,
    items_per_kind: int = ITEMS_PER_KIND,
) -> ValidationSet:
    """Draw the pairs and items of a part."""
    pairs = retrieval_set(split, pair_count)
    items = winoground_items(split, items_per_kind)
    pixels = np.stack([render(scene) for item in items for scene in item.scenes])
    return ValidationSet(
        images=pixels_to_input(torch.from_numpy(pairs.images)),
        tokens=tokenizer(pairs.captions),
        winoground_images=pixels_to_input(torch.from_numpy(pixels)),
        winoground_tokens=tokenizer([text for item in items for text in item.captions]),
        kinds=[item.kind for item in items],
    )


@torch.inference_mode()
def validate(student: CLIP | CustomTextCLIP, validation: ValidationSet) -> dict[str, float]:
    """Shares between 0 and 1: retrieval@1 in batches of 128, and text/image/group/GroupMatch by kind."""
    images = student.encode_image(validation.images, normalize=True)
    texts = student.encode_text(validation.tokens, normalize=True)
    own = torch.arange(RETRIEVAL_BATCH)
    logits = torch.stack(
        [i @ t.T for i, t in zip(images.split(RETRIEVAL_BATCH), texts.split(RETRIEVAL_BATCH), strict=True)]
    )
    shares = {
        "image_to_text": (logits.argmax(2) == own).float().mean().item(),
        "text_to_image": (logits.argmax(1) == own).float().mean().item(),
        "logit_scale": student.logit_scale.exp().item(),
    }
    pictures = student.encode_image(validation.winoground_images, normalize=True).unflatten(0, (-1, 2))
    sentences = student.encode_text(validation.winoground_tokens, normalize=True).unflatten(0, (-1, 2))
    scores = pictures @ sentences.transpose(1, 2)  # [item, image, caption]
    text = (scores[:, 0, 0] > scores[:, 0, 1]) & (scores[:, 1, 1] > scores[:, 1, 0])
    image = (scores[:, 0, 0] > scores[:, 1, 0]) & (scores[:, 1, 1] > scores[:, 0, 1])
    match = scores[:, 0, 0] + scores[:, 1, 1] > scores[:, 0, 1] + scores[:, 1, 0]
    right_by = {"text": text, "image": image, "group": text & image, "group_match": match}
    for kind in KINDS:
        chosen = torch.tensor([name == kind for name in validation.kinds])
        for score, right in right_by.items():
            shares[f"{kind}_{score}"] = right[chosen].float().mean().item()
    return shares
