"""The demo world: scenes of one or two coloured shapes, drawn from a seed, split by combination."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from enum import StrEnum

import numpy as np

IMAGE_SIZE_PX = 64

SHAPES = (
    "circle", "square", "triangle", "diamond", "star", "cross", "heart", "ring",
    "moon", "arrow", "oval", "dome", "drop", "frame", "hourglass", "bolt",
)  # fmt: skip

COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (214, 34, 40),
    "green": (36, 150, 60),
    "blue": (34, 74, 212),
    "yellow": (245, 220, 40),
    "orange": (244, 136, 24),
    "purple": (128, 42, 168),
    "pink": (246, 128, 180),
    "brown": (118, 70, 32),
    "black": (20, 20, 22),
    "lime": (150, 230, 40),
    "grey": (112, 114, 118),
    "cyan": (56, 208, 222),
}

RADII_PX = {"small": (7, 8), "large": (12, 13, 14)}
SINGLE_OBJECT_SHARE = 0.2
ALONG_PX = (16, 48)  # positions of the two objects along the direction of their relation
ACROSS_PX = (24, 28, 32, 36, 40)  # and across it: few, so that a short training learns the shapes
COLOUR_JITTER = 10
BACKGROUND = 238  # lighter than every colour: objects are always darker, which makes shapes easy to learn
BACKGROUND_JITTER = 12


class Split(StrEnum):
    """The part of the world that a combination of objects belongs to."""

    TRAIN = "train"
    VALIDATION = "validation"
    HELD_OUT = "heldout"


class Relation(StrEnum):
    """Where the first object of a scene is, seen from the second."""

    LEFT = "left"
    RIGHT = "right"
    ABOVE = "above"
    BELOW = "below"

    @property
    def reverse(self) -> Relation:
        """The same relation seen from the other object."""
        return _REVERSE[self]


_REVERSE = {
    Relation.LEFT: Relation.RIGHT,
    Relation.RIGHT: Relation.LEFT,
    Relation.ABOVE: Relation.BELOW,
    Relation.BELOW: Relation.ABOVE,
}


@dataclass(frozen=True)
class Thing:
    """One object: what a caption can mention, and jitter that it never does."""

    shape: str
    colour: str
    size: str
    radius_px: int
    rgb: tuple[int, int, int]
    x_px: int
    y_px: int


@dataclass(frozen=True)
class Scene:
    """One or two things on a plain background; `relation` places the first relative to the second."""

    things: tuple[Thing, ...]
    relation: Relation | None
    background: tuple[int, int, int]


def draw_scene(rng: np.random.Generator) -> Scene:
    """Draw a scene from the whole world; two objects always differ in shape or colour."""
    background = _jittered((BACKGROUND, BACKGROUND, BACKGROUND), BACKGROUND_JITTER, rng)
    relation = tuple(Relation)[rng.integers(4)]
    first_at, second_at = _places(relation, rng)
    if rng.random() < SINGLE_OBJECT_SHARE:
        return Scene((_draw_thing(rng, *first_at),), None, background)
    first = _draw_thing(rng, *first_at)
    second = _draw_thing(rng, *second_at)
    while (second.shape, second.colour) == (first.shape, first.colour):
        second = _draw_thing(rng, *second_at)
    return Scene((first, second), relation, background)


def draw_scene_of(split: Split, rng: np.random.Generator) -> Scene:
    while combination_split(scene := draw_scene(rng)) is not split:
        pass
    return scene


def combination_split(scene: Scene) -> Split:
    """The part a scene belongs to: about 80 % train, 10 % validation, 10 % held out.

    Two objects: decided by the unordered shapes and the unordered colours together, so exchanging colours or
    places never changes the part. One object: by shape and colour, on a diagonal that gives each part every
    shape and every colour.
    """
    if len(scene.things) == 1:
        (thing,) = scene.things
        bucket = (7 * SHAPES.index(thing.shape) + 3 * list(COLOURS).index(thing.colour)) % 10
    else:
        bucket = int.from_bytes(hashlib.sha256(combination(scene).encode()).digest()[:8], "big") % 10
    return {0: Split.VALIDATION, 1: Split.HELD_OUT}.get(bucket, Split.TRAIN)


def combination(scene: Scene) -> str:
    """The name of a scene's combination, such as `circle+star|blue+red`."""
    shapes = "+".join(sorted(thing.shape for thing in scene.things))
    colours = "+".join(sorted(thing.colour for thing in scene.things))
    return f"{shapes}|{colours}"


def with_colours_exchanged(scene: Scene) -> Scene:
    """Exchange the two objects' colours."""
    first, second = scene.things
    things = (
        replace(first, colour=second.colour, rgb=second.rgb),
        replace(second, colour=first.colour, rgb=first.rgb),
    )
    return replace(scene, things=things)


def with_places_exchanged(scene: Scene) -> Scene:
    """Exchange the two objects' places."""
    first, second = scene.things
    assert scene.relation is not None
    things = (
        replace(first, x_px=second.x_px, y_px=second.y_px),
        replace(second, x_px=first.x_px, y_px=first.y_px),
    )
    return replace(scene, things=things, relation=scene.relation.reverse)


def with_relation(scene: Scene, relation: Relation, rng: np.random.Generator) -> Scene:
    """Place the two objects anew, in a relation."""
    places = _places(relation, rng)
    things = tuple(replace(thing, x_px=x, y_px=y) for thing, (x, y) in zip(scene.things, places, strict=True))
    return replace(scene, things=things, relation=relation)


def _draw_thing(rng: np.random.Generator, x_px: int, y_px: int) -> Thing:
    shape = SHAPES[rng.integers(len(SHAPES))]
    colour = tuple(COLOURS)[rng.integers(len(COLOURS))]
    size = ("small", "large")[rng.integers(2)]
    radius_px = RADII_PX[size][rng.integers(len(RADII_PX[size]))]
    return Thing(shape, colour, size, radius_px, _jittered(COLOURS[colour], COLOUR_JITTER, rng), x_px, y_px)


def _places(relation: Relation, rng: np.random.Generator) -> tuple[tuple[int, int], tuple[int, int]]:
    """Centres of the first and the second object; two large objects never touch."""
    across = [int(value) for value in rng.choice(ACROSS_PX, size=2)]
    along = ALONG_PX if relation in (Relation.LEFT, Relation.ABOVE) else ALONG_PX[::-1]
    if relation in (Relation.LEFT, Relation.RIGHT):
        return (along[0], across[0]), (along[1], across[1])
    return (across[0], along[0]), (across[1], along[1])


def _jittered(rgb: tuple[int, int, int], jitter: int, rng: np.random.Generator) -> tuple[int, int, int]:
    red, green, blue = np.clip(np.array(rgb) + rng.integers(-jitter, jitter + 1, size=3), 0, 255).tolist()
    return red, green, blue
