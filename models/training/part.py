"""What the teacher sees of a batch."""

from dataclasses import dataclass

from sds_clip.models.shapes import Tokens


@dataclass(frozen=True, eq=False)
class Part:
    """The part of a batch that the teacher sees: its `places` in the batch, and its samples."""

    places: list[int]
    samples: list[int]
    captions: list[str]
    negatives: list[tuple[str, ...]]
    embeddings: Tokens | None
    """The captions as the teacher's denoiser takes them, if L_SDS is used."""


def sub_batch(batch_size: int, count: int) -> list[int]:
    """Return `count` positions spread evenly over a batch.

    The batch is in random order, so the choice is random too. Since the positions are spread evenly, every
    process of an even split gets an equal part.
    """
    return [place * batch_size // count for place in range(count)]
