"""Zero-shot classification: labels in templates make prompts, and prompts' mean makes a class weight."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch.nn.functional as F
from jaxtyping import Float
from open_clip.zero_shot_metadata import (
    IMAGENET_CLASSNAMES,
    OPENAI_IMAGENET_TEMPLATES,
    SIMPLE_IMAGENET_TEMPLATES,
)
from torch import Tensor

PLACES = ("{}", "{c}")
"""What a template may hold where the label goes."""


def _as_text(templates: Sequence[Callable[[str], str]]) -> tuple[str, ...]:
    """Write open_clip's functions of a label as strings with a {} for it."""
    return tuple(template("{}") for template in templates)


SIMPLE_TEMPLATES: tuple[str, ...] = _as_text(SIMPLE_IMAGENET_TEMPLATES)
OPENAI_TEMPLATES: tuple[str, ...] = _as_text(OPENAI_IMAGENET_TEMPLATES)
IMAGENET_LABELS: tuple[str, ...] = tuple(IMAGENET_CLASSNAMES)


def fill(template: str, label: str) -> str:
    """Put the label in each place of the template.

    Plain substitution: `str.format` would let a stranger's template read attributes of our objects. What the
    label itself holds is never substituted again.
    """
    pieces = [piece for part in template.split("{}") for piece in part.split("{c}")]
    return label.join(pieces)


def prompts(labels: Sequence[str], templates: Sequence[str]) -> list[str]:
    """All prompts, label by label: the first label in every template, then the second.

    Raises ValueError where a template has no place for the label, which would make all classes one.
    """
    for template in templates:
        if not any(place in template for place in PLACES):
            raise ValueError(f"the template {template!r} has no {{}} for the label")
    return [fill(template, label) for label in labels for template in templates]


def class_weights(text_features: Float[Tensor, "n d"], templates: int) -> Float[Tensor, "c d"]:
    """Mean over a label's prompts of their L2-normalised features, normalised again.

    `text_features` is label-major, as `prompts` writes them: n = classes * templates. The same as
    `open_clip.build_zero_shot_classifier`, transposed.
    """
    features = F.normalize(text_features.float(), dim=-1)
    means = features.reshape(-1, templates, features.shape[-1]).mean(dim=1)
    return F.normalize(means, dim=-1)
