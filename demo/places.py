"""What a scene's places say: which object comes first, from left to right or from top to bottom."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from demo.captions import caption, draw_wording
from demo.world import COLOURS, SHAPES, Relation, Scene, Thing

UNSAID = -100
"""The target of what a scene or caption does not say; torch's cross entropy leaves it out."""
SLOT_SIZES = (len(SHAPES), len(COLOURS), len(SHAPES) * len(COLOURS))
"""The numbers of shapes, of colours, and of both together."""
HEAD_SIZES = (*SLOT_SIZES, *SLOT_SIZES, 2)
"""The first object's shape, colour and both, those of the second, and whether they stand side by side."""


def in_order(scene: Scene) -> tuple[Thing, ...]:
    """The objects from left to right, or from top to bottom."""
    reverse = scene.relation in (Relation.RIGHT, Relation.BELOW)
    return scene.things[::-1] if reverse else scene.things


def shape_of(thing: Thing) -> int:
    return SHAPES.index(thing.shape)


def colour_of(thing: Thing) -> int:
    return tuple(COLOURS).index(thing.colour)


def thing_of(thing: Thing) -> int:
    return shape_of(thing) * len(COLOURS) + colour_of(thing)


def place_targets(scenes: Sequence[Scene], said: Sequence[bool]) -> Int[Tensor, "n head=7"]:
    """The target of each of HEAD_SIZES. A single object is a first one. `said` is False where places are not told."""
    return torch.tensor(
        [_targets(scene) if told else [UNSAID] * 7 for scene, told in zip(scenes, said, strict=True)]
    )


def _targets(scene: Scene) -> list[int]:
    slots = [[shape_of(thing), colour_of(thing), thing_of(thing)] for thing in in_order(scene)]
    if len(slots) == 1:
        return [*slots[0], *[UNSAID] * 4]
    side_by_side = scene.relation in (Relation.LEFT, Relation.RIGHT)
    return [*slots[0], *slots[1], int(side_by_side)]


def told_captions(
    scenes: Sequence[Scene], rng: np.random.Generator
) -> tuple[list[str], Int[Tensor, "n head=7"]]:
    """Put scenes into words. Returns the captions, and the targets of what they tell."""
    wordings = [draw_wording(len(scene.things), rng) for scene in scenes]
    captions = [caption(scene, wording) for scene, wording in zip(scenes, wordings, strict=True)]
    return captions, place_targets(scenes, [wording.tells_places for wording in wordings])


def new_head(width: int) -> nn.Linear:
    """A linear map from an embedding to the logits of all of HEAD_SIZES."""
    return nn.Linear(width, sum(HEAD_SIZES))


def places_loss(logits: Float[Tensor, "b heads"], targets: Int[Tensor, "b head=7"]) -> Float[Tensor, ""]:
    """The mean of the seven cross entropies, over what is told."""
    losses = [
        cross_entropy(each, target, ignore_index=UNSAID)
        for each, target in zip(torch.split(logits, list(HEAD_SIZES), dim=1), targets.T, strict=True)
    ]
    return torch.stack(losses).mean()
