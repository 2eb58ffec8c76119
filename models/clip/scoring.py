"""Turn features into scores: cosines, logits and probabilities, in float32."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class Match:
    """Every text scored against every image."""

    scores: Float[Tensor, "i t"]
    """Cosines."""
    logits: Float[Tensor, "i t"]
    """logit_scale * cosine + logit_bias."""
    probabilities: Float[Tensor, "i t"]
    """For each image a softmax over the texts; for a model with a bias, each pair's own sigmoid."""
    text_probabilities: Float[Tensor, "t i"]
    """The same for each text over the images."""


def match(
    image_features: Float[Tensor, "i d"],
    text_features: Float[Tensor, "t d"],
    *,
    logit_scale: float,
    logit_bias: float | None,
) -> Match:
    """Score L2-normalised text features against L2-normalised image features.

    logits = logit_scale * I T^t (CLIP, arXiv 2103.00020, figure 3), plus logit_bias if the model has one.
    Such a model was trained on each pair alone (SigLIP, arXiv 2303.15343, equation 1), so its probabilities
    are sigmoids and do not sum to one.
    """
    scores = image_features.float() @ text_features.float().T
    logits = logit_scale * scores
    if logit_bias is None:
        return Match(scores, logits, logits.softmax(dim=-1), logits.T.softmax(dim=-1))
    logits = logits + logit_bias
    probabilities = logits.sigmoid()
    return Match(scores, logits, probabilities, probabilities.T)
