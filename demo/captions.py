"""Captions of scenes in varied wording; the wording is drawn independently of the scene."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sds_clip.demo.world import Relation, Scene, Thing

SIZE_WORDS = {"small": ("small", "little", "tiny"), "large": ("large", "big", "huge")}

# Each row is one way to express a relation and its reverse.
HORIZONTAL = (
    ("to the left of", "to the right of"),
    ("left of", "right of"),
    ("on the left of", "on the right of"),
    ("on the left side of", "on the right side of"),
)
VERTICAL = (("above", "below"), ("over", "under"), ("higher than", "lower than"), ("atop", "beneath"))
HORIZONTAL_AFTER = (("to its left", "to its right"), ("on its left", "on its right"))
VERTICAL_AFTER = (("above it", "below it"), ("over it", "under it"))

SINGLE_FRAMES = (
    "{a}", "{a}", "a photo of {a}", "a picture of {a}", "an image of {a}", "there is {a}",
    "{a} on its own", "one sees {a}",
)  # fmt: skip
BEFORE_FRAMES = (
    "{a} {relation} {b}", "{a} {relation} {b}", "{a} is {relation} {b}", "a photo of {a} {relation} {b}",
    "a picture of {a} {relation} {b}", "there is {a} {relation} {b}", "{a} sits {relation} {b}",
)  # fmt: skip
AFTER_FRAMES = ("{b} with {a} {relation}", "a photo of {b} with {a} {relation}", "{b} and {a} {relation}")
PLAIN_FRAMES = ("{a} and {b}", "{a} next to {b}", "a photo of {a} and {b}", "there are {a} and {b}")

COLOUR_SHARE = 0.9
SIZE_SHARE = 0.35
PLAIN_SHARE = 0.15
AFTER_SHARE = 0.25


@dataclass(frozen=True)
class Wording:
    """How a scene is put into words; a wording fits any scene with the same number of objects.

    `flipped` names the scene's second object first. `colours`, `sizes` (index of a synonym, or None to omit
    it) and the rest follow the scene's objects.
    """

    frame: str
    phrase: int
    flipped: bool
    colours: tuple[bool, ...]
    sizes: tuple[int | None, ...]

    @property
    def tells_places(self) -> bool:
        """Whether the caption says which object, of which colour, is where. One that is alone is told by its colour."""
        return all(self.colours) and self.frame not in PLAIN_FRAMES


def draw_wording(count: int, rng: np.random.Generator, *, complete: bool = False) -> Wording:
    """Draw the wording for a scene of `count` objects; `complete` always names colours and the relation."""
    kind = rng.random()
    frames: tuple[str, ...]
    if count == 1:
        frames = SINGLE_FRAMES
    elif kind < PLAIN_SHARE and not complete:
        frames = PLAIN_FRAMES
    elif kind < PLAIN_SHARE + AFTER_SHARE:
        frames = AFTER_FRAMES
    else:
        frames = BEFORE_FRAMES
    return Wording(
        frame=frames[rng.integers(len(frames))],
        phrase=int(rng.integers(4)),
        flipped=bool(rng.integers(2)),
        colours=tuple(bool(draw) for draw in (rng.random(count) < COLOUR_SHARE) | complete),
        sizes=tuple(int(rng.integers(3)) if draw < SIZE_SHARE else None for draw in rng.random(count)),
    )


def caption(scene: Scene, wording: Wording) -> str:
    """Put a scene into words, in lower case without a full stop."""
    phrases = [
        _noun_phrase(thing, colour, size)
        for thing, colour, size in zip(scene.things, wording.colours, wording.sizes, strict=True)
    ]
    if scene.relation is None:
        return wording.frame.format(a=phrases[0])
    relation = scene.relation.reverse if wording.flipped else scene.relation
    first, second = reversed(phrases) if wording.flipped else phrases
    return wording.frame.format(a=first, b=second, relation=_relation_phrase(relation, wording))


def _relation_phrase(relation: Relation, wording: Wording) -> str:
    after = wording.frame in AFTER_FRAMES
    if relation in (Relation.LEFT, Relation.RIGHT):
        rows = HORIZONTAL_AFTER if after else HORIZONTAL
    else:
        rows = VERTICAL_AFTER if after else VERTICAL
    return rows[wording.phrase % len(rows)][relation in (Relation.RIGHT, Relation.BELOW)]


def _noun_phrase(thing: Thing, colour: bool, size: int | None) -> str:
    words = [] if size is None else [SIZE_WORDS[thing.size][size]]
    words += [thing.colour] if colour else []
    words += [thing.shape]
    article = "an" if words[0][0] in "aeiou" or words[0] == "hourglass" else "a"
    return f"{article} {' '.join(words)}"
