"""What a teacher learns from: the images of a world's training part, and several captions of each."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from jaxtyping import UInt8

from sds_clip.demo.captions import Wording, caption, draw_wording
from sds_clip.demo.render import render
from sds_clip.demo.sets import scenes
from sds_clip.demo.winoground_sets import two_different
from sds_clip.demo.world import Scene, Split, with_colours_exchanged, with_places_exchanged

CAPTIONS_EACH = 16


class Lessons(Protocol):
    """Pure functions of the images' numbers."""

    def images(self, start: int, count: int) -> UInt8[np.ndarray, "n 64 64 3"]:
        """Draw images."""

    def captions(self, start: int, count: int, each: int, *, bound: bool = True) -> list[list[str]]:
        """So many captions of each image. If they are not bound, their words are right, and bound at random."""


@dataclass(frozen=True)
class ShapeLessons:
    """The demo world's, by a seed."""

    seed: int

    def images(self, start: int, count: int) -> UInt8[np.ndarray, "n 64 64 3"]:
        return np.stack([render(scene) for scene in self._scenes(start, count)])

    def captions(self, start: int, count: int, each: int, *, bound: bool = True) -> list[list[str]]:
        found = []
        for number, scene in enumerate(self._scenes(start, count), start):
            # Exchanges are drawn apart, so that the placebo has the same wording.
            rng, exchanges = (np.random.default_rng((self.seed, number, stream)) for stream in (1, 2))
            drawn = [draw_wording(len(scene.things), rng) for _ in range(each)]
            said = [
                (scene, wording) if bound else _bound_at_random(scene, wording, exchanges)
                for wording in drawn
            ]
            found.append([caption(*one) for one in said])
        return found

    def _scenes(self, start: int, count: int) -> list[Scene]:
        return scenes(Split.TRAIN, self.seed, start, count)


def _bound_at_random(scene: Scene, wording: Wording, rng: np.random.Generator) -> tuple[Scene, Wording]:
    """A scene of the same words: colours and places are exchanged, each with probability 1/2.

    A single object, and two of one shape or one colour, are named without colours, which would bind them whatever was
    exchanged.
    """
    if not two_different(scene):
        wording = replace(wording, colours=(False,) * len(scene.things))
    if len(scene.things) == 2 and rng.random() < 0.5:
        scene = with_colours_exchanged(scene)
    if len(scene.things) == 2 and rng.random() < 0.5:
        scene = with_places_exchanged(scene)
    return scene, wording
