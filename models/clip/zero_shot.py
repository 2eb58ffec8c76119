"""Zero-shot classification: labels in templates make prompts, whose mean feature is a class weight."""

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
"""The placeholders for the label in a template."""


def _as_text(templates: Sequence[Callable[[str], str]]) -> tuple[str, ...]:
    """Write open_clip's templates, which are functions of a label, as strings with a {}."""
    return tuple(template("{}") for template in templates)


LABEL_SETS: dict[str, tuple[str, ...]] = {"imagenet": tuple(IMAGENET_CLASSNAMES)}
TEMPLATE_SETS: dict[str, tuple[str, ...]] = {
    "simple": _as_text(SIMPLE_IMAGENET_TEMPLATES),
    "openai": _as_text(OPENAI_IMAGENET_TEMPLATES),
}
"""`openai` has the 80 templates of CLIP's ImageNet notebook, `simple` the 7 that do nearly as well."""


def fill(template: str, label: str) -> str:
    """Put the label in each placeholder of the template.

    This is plain substitution, because `str.format` would let an untrusted template read attributes of our objects.
    Placeholders in the label itself are not substituted.
    """
    pieces = [piece for part in template.split("{}") for piece in part.split("{c}")]
    return label.join(pieces)


def prompts(labels: Sequence[str], templates: Sequence[str]) -> list[str]:
    """Return all prompts, label by label: the first label in every template, then the second.

    Raises ValueError if a template has no placeholder, which would make all classes equal.
    """
    for template in templates:
        if not any(place in template for place in PLACES):
            raise ValueError(f"the template {template!r} has no {{}} for the label")
    return [fill(template, label) for label in labels for template in templates]


def class_weights(text_features: Float[Tensor, "n d"], templates: int) -> Float[Tensor, "c d"]:
    """Average the L2-normalised features of a label's prompts, and normalise again.

    `text_features` is label-major, as `prompts` writes them: n = classes * templates. The result is that of
    `open_clip.build_zero_shot_classifier`, transposed.
    """
    features = F.normalize(text_features.float(), dim=-1)
    means = features.reshape(-1, templates, features.shape[-1]).mean(dim=1)
    return F.normalize(means, dim=-1)
