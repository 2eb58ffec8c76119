"""What the teacher sees of a batch."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Part:
    """The part of a batch that the teacher sees: its `places` in the batch, and its samples."""

    places: list[int]
    samples: list[int]
    captions: list[str]
    negatives: list[tuple[str, ...]]
    embeddings: Float[Tensor, "b s e"] | None
    """The captions as the teacher's denoiser takes them, if L_SDS is used."""
