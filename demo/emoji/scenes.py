"""Scenes of one to four pictures, with captions: what is there, where, how many, and how large."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np

from sds_clip.demo.emoji.packages import Concept
from sds_clip.demo.emoji.pictures import SIDE_PX
from sds_clip.demo.world import Relation, Split

T = TypeVar("T")
THINGS = {
    name: plural or f"{name}s"
    for name, _, plural in (
        each.partition("/")
        for each in (
            "airplane", "anchor", "balloon", "banana", "bear", "bell", "bicycle", "bus/buses",
            "butterfly/butterflies", "cactus/cactuses", "camel", "camera", "candle", "carrot", "castle", "cat",
            "cookie", "cow", "crocodile", "crown", "dog", "dolphin", "doughnut", "drum", "duck", "elephant", "frog",
            "ghost", "guitar", "hamburger", "hammer", "horse", "house", "key", "lemon", "lion", "mouse/mice",
            "mushroom", "octopus/octopuses", "owl", "pear", "pencil", "penguin", "pig", "pineapple", "pizza", "ring",
            "robot", "rocket", "rose", "snail", "snake", "snowman/snowmen", "spider", "strawberry/strawberries",
            "sunflower", "telescope", "tiger", "tractor", "trophy/trophies", "trumpet", "turtle", "umbrella", "whale",
        )
    )
}  # fmt: skip
"""The 64 concepts of scenes with several pictures, and their plurals. Five or six of the vendors have drawn each."""
NUMBERS = ("two", "three", "four")
TEMPLATES = ("{}", "{}", "a picture of {}", "{} emoji", "an emoji of {}", "a drawing of {}", "this is {}")
ZERO_SHOT_TEMPLATES = ("{}", "a picture of {}", "{} emoji", "a drawing of {}")
_LIGHT = 0.7
"""The share of grounds that are light."""
_WORDS = {
    Relation.LEFT: ("left of", "to the left of", "on the left of"),
    Relation.RIGHT: ("right of", "to the right of", "on the right of"),
    Relation.ABOVE: ("above", "over"),
    Relation.BELOW: ("below", "under"),
}


def pair_split(first: str, second: str) -> Split:
    """The part of an unordered pair of things: about 80 % train, 10 % validation, 10 % held out."""
    return _split("+".join(sorted((first, second))), 10)


def concept_split(concept: Concept) -> Split:
    """The part of a concept: about 90 % train, 5 % validation, 5 % held out.

    The things of scenes are all in the training part: their pairs are split.
    """
    return Split.TRAIN if concept.name in THINGS else _split(concept.name, 20)


def _split(text: str, parts: int) -> Split:
    """By the text's hash: one of so many parts for validation, and one is held out."""
    return {0: Split.VALIDATION, 1: Split.HELD_OUT}.get(zlib.crc32(text.encode()) % parts, Split.TRAIN)


@dataclass(frozen=True)
class Layer:
    """A picture in a scene: its concept, the middle in pixels, the side in pixels, and the angle in radians."""

    concept: str
    x: float
    y: float
    side: float
    angle: float = 0.0


@dataclass(frozen=True)
class Scene:
    """Pictures on a plain ground, and their caption."""

    layers: tuple[Layer, ...]
    ground: tuple[float, float, float]
    caption: str


def ground(rng: np.random.Generator) -> tuple[float, float, float]:
    """A colour of the ground, 0 to 1: white to light grey, or any."""
    if rng.random() < _LIGHT:
        value = float(rng.uniform(0.85, 1))
        return value, value, value
    red, green, blue = rng.uniform(0, 1, 3).tolist()
    return red, green, blue


def single(concept: Concept, rng: np.random.Generator, *, turned: bool = True) -> Scene:
    """One picture, somewhere, a little turned: of its name, or of a keyword or two."""
    side = float(rng.uniform(0.6, 1.0) * SIDE_PX) if turned else float(SIDE_PX)
    slack = (SIDE_PX - side) / 2 + (4 if turned else 0)
    x, y = (SIDE_PX / 2 + rng.uniform(-slack, slack, 2)).tolist()
    angle = float(rng.normal(0, 0.15)) if turned else 0.0
    said = concept.name
    if concept.keywords and rng.random() < 0.3:
        count = min(len(concept.keywords), int(rng.integers(1, 3)))
        said = " ".join(str(word) for word in rng.choice(concept.keywords, count, replace=False))
        said = f"{concept.name} {said}" if rng.random() < 0.5 else said
    caption = _chosen(TEMPLATES, rng).format(said)
    return Scene((Layer(concept.name, x, y, side, angle),), ground(rng), caption)


def pair(
    first: str, second: str, relation: Relation, rng: np.random.Generator, words: np.random.Generator
) -> Scene:
    """Two things, the first in this relation to the second. The caption says where they are, in words of its own."""
    layers = _placed(first, second, relation, (rng.uniform(21, 29), rng.uniform(21, 29)), rng)
    names = first, second
    if words.random() < 0.5:
        names, relation = (second, first), relation.reverse
    caption = f"{a(names[0])} {_chosen(_WORDS[relation], words)} {a(names[1])}"
    return Scene(layers, ground(rng), caption)


def sized_pair(
    big: str, small: str, relation: Relation, rng: np.random.Generator, words: np.random.Generator
) -> Scene:
    """A big and a small thing. The caption says which is which, and in half of the cases where."""
    layers = _placed(big, small, relation, (rng.uniform(28, 34), rng.uniform(13, 17)), rng)
    said = [f"a big {big}", f"a small {small}"]
    if words.random() < 0.5:
        said, relation = said[::-1], relation.reverse
    between = _chosen(_WORDS[relation], words) if words.random() < 0.5 else "and"
    return Scene(layers, ground(rng), f"{said[0]} {between} {said[1]}")


def several(thing: str, count: int, rng: np.random.Generator) -> Scene:
    """Two to four of a thing."""
    corners = rng.permutation([(-1, -1), (-1, 1), (1, -1), (1, 1)])[:count] * 16
    side = float(rng.uniform(20, 27))
    middle = SIDE_PX / 2 + corners + rng.uniform(-3, 3, (count, 2))
    layers = tuple(Layer(thing, float(x), float(y), side) for x, y in middle)
    return Scene(layers, ground(rng), f"{NUMBERS[count - 2]} {THINGS[thing]}")


def draw_things(split: Split, rng: np.random.Generator) -> tuple[str, str]:
    """Draw two things whose pair is in this part."""
    while True:
        first, second = (str(name) for name in rng.choice(list(THINGS), 2, replace=False))
        if pair_split(first, second) is split:
            return first, second


def draw_composition(
    split: Split, rng: np.random.Generator, words: np.random.Generator | None = None, *, swapped: bool = False
) -> Scene:
    """Draw a scene of several pictures: a pair with places, with sizes or with neither, or several of one thing.

    Other `words` put the same scene into other words. A swapped scene is the same with its two things exchanged, in the
    picture and in the caption.
    """
    words = words or rng
    kind = rng.random()
    relation = _chosen(tuple(Relation), rng)
    if kind < 0.2:
        return several(_chosen(tuple(THINGS), rng), int(rng.integers(2, 5)), rng)
    first, second = draw_things(split, rng)
    if swapped and kind < 0.9:
        first, second = second, first
    scene = (sized_pair if kind < 0.5 else pair)(first, second, relation, rng, words)
    return replace(scene, caption=f"{a(first)} and {a(second)}") if kind >= 0.9 else scene


def a(name: str) -> str:
    """The name with its article."""
    return f"{'an' if name[0] in 'aeiou' else 'a'} {name}"


def _placed(
    first: str, second: str, relation: Relation, sides: tuple[float, float], rng: np.random.Generator
) -> tuple[Layer, Layer]:
    along, across = rng.uniform(14, 17, 2), rng.uniform(-9, 9, 2)
    sign = -1 if relation in (Relation.LEFT, Relation.ABOVE) else 1
    layers = []
    for name, side, one, other, way in zip((first, second), sides, along, across, (sign, -sign), strict=True):
        x, y = (one * way, other) if relation in (Relation.LEFT, Relation.RIGHT) else (other, one * way)
        layers.append(Layer(name, float(SIDE_PX / 2 + x), float(SIDE_PX / 2 + y), float(side)))
    return layers[0], layers[1]


def _chosen(among: Sequence[T], rng: np.random.Generator) -> T:
    return among[int(rng.integers(len(among)))]
