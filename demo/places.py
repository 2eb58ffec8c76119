"""What a scene's image and its caption tell: which object comes first, and which colour belongs to which shape.

The first object is the left one, or the upper one.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from sds_clip.demo.captions import caption, draw_wording
from sds_clip.demo.world import COLOURS, SHAPES, Relation, Scene, Thing

UNSAID = -100
"""The target of what a scene or caption does not say; torch's cross entropy leaves it out."""
THINGS = len(SHAPES) * len(COLOURS)
"""The number of shapes and colours together."""
HEAD_SIZES = [len(SHAPES), len(COLOURS), len(SHAPES), len(COLOURS), 2, THINGS]
"""The first object's shape and colour, the second's, whether they stand side by side, and the things present."""


SLOT_SIZES = [*HEAD_SIZES[:5], THINGS, THINGS]
"""The same with one head for the first object, and one for the second, instead of one for the things present."""


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


def place_targets(scenes: Sequence[Scene], said: Sequence[bool]) -> Int[Tensor, "n target=7"]:
    """The targets of the heads. The last head has two: the first object and the second, each a shape and a colour.

    A single object is a first one. `said` is False where places are not told.
    """
    return torch.tensor(
        [_targets(scene) if told else [UNSAID] * 7 for scene, told in zip(scenes, said, strict=True)]
    )


def _targets(scene: Scene) -> list[int]:
    first, *others = in_order(scene)
    targets = [shape_of(first), colour_of(first)]
    if not others:
        return [*targets, *[UNSAID] * 3, thing_of(first), UNSAID]
    (second,) = others
    side_by_side = scene.relation in (Relation.LEFT, Relation.RIGHT)
    targets += [shape_of(second), colour_of(second), int(side_by_side)]
    return [*targets, thing_of(first), thing_of(second)]


def told_captions(
    scenes: Sequence[Scene], rng: np.random.Generator
) -> tuple[list[str], Int[Tensor, "n target=7"]]:
    """Put scenes into words. Returns the captions, and the targets of what they tell."""
    wordings = [draw_wording(len(scene.things), rng) for scene in scenes]
    captions = [caption(scene, wording) for scene, wording in zip(scenes, wordings, strict=True)]
    return captions, place_targets(scenes, [wording.tells_places for wording in wordings])


def new_head(width: int, sizes: Sequence[int] = HEAD_SIZES) -> nn.Linear:
    """A linear map from an embedding to the logits of all heads."""
    return nn.Linear(width, sum(sizes))


def places_loss(logits: Float[Tensor, "b heads"], targets: Int[Tensor, "b target=7"]) -> Float[Tensor, ""]:
    """The mean of the cross entropies of the five heads that tell places, over what is told."""
    losses = [
        cross_entropy(each, target, ignore_index=UNSAID)
        for each, target in zip(torch.split(logits, HEAD_SIZES, dim=1)[:5], targets.T, strict=False)
    ]
    return torch.stack(losses).mean()


def bindings_loss(logits: Float[Tensor, "b heads"], targets: Int[Tensor, "b target=7"]) -> Float[Tensor, ""]:
    """The mean cross entropy of the things present, over what is told. With two objects, it is at least ln 2.

    One head tells them wherever they stand. A sum of a feature for each shape and one for each colour cannot lower
    this loss below ln 4: it holds the things that exchange their colours as likely.
    """
    things = torch.split(logits, HEAD_SIZES, dim=1)[-1]
    return cross_entropy(torch.cat([things, things]), targets[:, 5:].T.flatten(), ignore_index=UNSAID)


def slots_loss(logits: Float[Tensor, "b slots"], targets: Int[Tensor, "b target=7"]) -> Float[Tensor, ""]:
    """The mean of the cross entropies of SLOT_SIZES, over what is told."""
    losses = [
        cross_entropy(each, target, ignore_index=UNSAID)
        for each, target in zip(torch.split(logits, SLOT_SIZES, dim=1), targets.T, strict=True)
    ]
    return torch.stack(losses).mean()
