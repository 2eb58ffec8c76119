"""What a student tells of pictures by a vendor, among many names, and of scenes with several pictures."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol, TypeAlias

import numpy as np
import PIL.Image
import torch
from jaxtyping import Bool, Float
from open_clip.model import CLIP
from open_clip.tokenizer import HFTokenizer
from torch import Tensor

from sds_clip.demo.emoji.draw import Drawer, on_white
from sds_clip.demo.emoji.packages import HELD_OUT, Concept
from sds_clip.demo.emoji.pictures import Pictures
from sds_clip.demo.emoji.scenes import (
    ZERO_SHOT_TEMPLATES,
    Scene,
    concept_split,
    draw_composition,
    draw_things,
    pair,
    sized_pair,
)
from sds_clip.demo.emoji.student import scaled
from sds_clip.demo.world import Relation, Split
from sds_clip.models.clip.encode import encode_images, encode_texts
from sds_clip.models.clip.model import Clip
from sds_clip.models.clip.zero_shot import class_weights, prompts
from sds_clip.models.evaluation.results import GROUP_MATCH
from sds_clip.models.evaluation.retrieval import recall_margins
from sds_clip.models.evaluation.scorers import cosines
from sds_clip.models.evaluation.winoground import winoground_margins
from sds_clip.models.evaluation.zero_shot import class_margins

Outcomes: TypeAlias = Bool[Tensor, " n"]
BATCH = 128
SEED = 7
KINDS = ("places", "sizes")
"""Of items: what two scenes of the same words differ in."""


def watched(concept: Concept) -> bool:
    """Whether a concept's picture by the held-out vendor is seen in curves. A quarter is, and decides nothing later."""
    return zlib.crc32(concept.code.encode()) % 4 == 0


class Embeds(Protocol):
    """What embeds pictures, with values from 0 to 1, and texts, as unit vectors."""

    def images(self, images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n d"]: ...

    def texts(self, texts: Sequence[str]) -> Float[Tensor, "n d"]: ...


@dataclass(frozen=True)
class Student:
    """A network with its tokenizer, while it is trained."""

    network: CLIP
    tokenizer: HFTokenizer

    @torch.inference_mode()
    def images(self, images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n d"]:
        parts = [
            self.network.encode_image(scaled(part), normalize=True) for part in torch.split(images, BATCH)
        ]
        return torch.cat(parts).float()

    @torch.inference_mode()
    def texts(self, texts: Sequence[str]) -> Float[Tensor, "n d"]:
        tokens = torch.split(self.tokenizer(list(texts)), BATCH)
        return torch.cat([self.network.encode_text(part, normalize=True) for part in tokens]).float()


@dataclass(frozen=True)
class Served:
    """A model as it is served: its own transform and tokenizer, from whole pixels."""

    clip: Clip

    def images(self, images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n d"]:
        pixels = (255 * images).round().byte().permute(0, 2, 3, 1).numpy()
        return encode_images(self.clip, [PIL.Image.fromarray(each) for each in pixels], batch_size=BATCH)

    def texts(self, texts: Sequence[str]) -> Float[Tensor, "n d"]:
        return encode_texts(self.clip, list(texts))


def names_set(
    pictures: Pictures, only_watched: bool | None = None
) -> tuple[Float[Tensor, "n 3 h w"], list[Concept], list[Concept]]:
    """The held-out vendor's pictures on white, their concepts, and all concepts that it has drawn."""
    places = pictures.of([HELD_OUT.name])
    every = [pictures.concepts[pictures.concept[place]] for place in places]
    kept = np.array([only_watched is None or watched(each) is only_watched for each in every])
    shown = [each for each, is_kept in zip(every, kept, strict=True) if is_kept]
    return on_white(pictures.tensor(places[kept])), shown, every


def name_scores(
    student: Embeds, images: Float[Tensor, "n 3 h w"], names: Sequence[Concept]
) -> Float[Tensor, "n c"]:
    """The cosine of each picture and each name, whose embedding is averaged over the templates."""
    texts = student.texts(prompts([each.name for each in names], ZERO_SHOT_TEMPLATES))
    return student.images(images) @ class_weights(texts, len(ZERO_SHOT_TEMPLATES)).T


def named(
    scores: Float[Tensor, "n c"], shown: Sequence[Concept], names: Sequence[Concept]
) -> dict[str, Outcomes]:
    """Whether each picture's own name is the first, or among the first five. A tie is wrong.

    Among all names; among all, for pictures of trained concepts; and among the untrained names alone, for theirs.
    """
    place = {each.code: number for number, each in enumerate(names)}
    own = torch.tensor([place[each.code] for each in shown])
    untrained = torch.tensor([concept_split(each) is not Split.TRAIN for each in names])
    rows = untrained[own]
    found = dict[str, Outcomes]()
    for most, every in _among_first(scores, own).items():
        found |= {f"all, top {most}": every, f"trained, top {most}": every[~rows]}
    among = _among_first(scores[rows][:, untrained], (untrained.cumsum(0) - 1)[own[rows]])
    return found | {f"untrained among themselves, top {most}": right for most, right in among.items()}


def zero_shot(student: Embeds, pictures: Pictures, only_watched: bool | None = None) -> dict[str, Outcomes]:
    """`named` for the held-out vendor's pictures, among the names of all that it has drawn."""
    images, shown, names = names_set(pictures, only_watched)
    return named(name_scores(student, images, names), shown, names)


def _among_first(scores: Tensor, own: Tensor) -> dict[int, Outcomes]:
    """Whether a picture's own name is the first, and among the first five; with five names it always is."""
    margins = class_margins(scores, own) if len(own) else []
    right = {most: [each.get(f"acc{most}", 1.0) > 0 for each in margins] for most in (1, 5)}
    return {most: torch.tensor(each, dtype=torch.bool) for most, each in right.items()}


def compositions(
    student: Embeds, drawer: Drawer, split: Split, count: int = 512, seed: int = SEED
) -> dict[str, Outcomes]:
    """In-batch retrieval of scenes, and GroupMatch of places and of sizes. Chance is 1/128, and 1/2."""
    rng = np.random.default_rng(seed)
    scenes = [draw_composition(split, rng) for _ in range(count)]
    images, texts = student.images(drawer(scenes, rng)), student.texts([scene.caption for scene in scenes])
    found = {"image to text": _found_first(images, texts), "text to image": _found_first(texts, images)}
    for kind in KINDS:
        flat = [scene for _ in range(count) for scene in draw_item(kind, split, rng)]
        images = student.images(drawer(flat, rng)).view(count, 2, -1)
        texts = student.texts([scene.caption for scene in flat]).view(count, 2, -1)
        margins = [winoground_margins(one)[GROUP_MATCH] for one in cosines(texts, images)]
        found[f"GroupMatch of {kind}"] = torch.tensor(margins) > 0
    return found


def _found_first(queries: Float[Tensor, "n d"], others: Float[Tensor, "n d"]) -> Outcomes:
    """Whether each query finds its counterpart first in its batch."""
    found = list[bool]()
    for batch, counterparts in zip(torch.split(queries, BATCH), torch.split(others, BATCH), strict=True):
        own = torch.arange(len(batch))
        ours, theirs = [(batch, own)], [(counterparts, own)]
        found += [first > 0 for first, *_ in recall_margins(ours, partial(iter, theirs))]
    return torch.tensor(found)


def draw_item(kind: str, split: Split, rng: np.random.Generator) -> tuple[Scene, Scene]:
    """Two scenes that differ in who is where, or in who is big, with captions of the same words."""
    first, second = draw_things(split, rng)
    relation = tuple(Relation)[rng.integers(4)]
    seed = int(rng.integers(2**32))

    def made(scene: Callable[..., Scene], one: str, other: str, relation: Relation) -> Scene:
        return scene(one, other, relation, *(np.random.default_rng((seed, stream)) for stream in (0, 1)))

    if kind == "places":
        return made(pair, first, second, relation), made(pair, second, first, relation)
    one, other = made(sized_pair, first, second, relation), made(sized_pair, second, first, relation.reverse)
    return (
        replace(one, caption=f"a big {first} and a small {second}"),
        replace(other, caption=f"a small {first} and a big {second}"),
    )
