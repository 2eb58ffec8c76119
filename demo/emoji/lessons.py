"""What a teacher of the world of pictures learns from: scenes of the 64 things by the vendors that are seen."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from sds_clip.demo.emoji.draw import Drawer
from sds_clip.demo.emoji.packages import SEEN
from sds_clip.demo.emoji.pictures import Pictures
from sds_clip.demo.emoji.scenes import Scene, draw_composition
from sds_clip.demo.world import Split


class PictureLessons:
    """The scenes, by a seed."""

    def __init__(self, pictures: Pictures, seed: int) -> None:
        self._seed = seed
        self._drawer = Drawer(pictures, [each.name for each in SEEN])

    def images(self, start: int, count: int) -> UInt8[np.ndarray, "n 64 64 3"]:
        scenes = [self._scene(number) for number in range(start, start + count)]
        # By its number alone, so that an image does not depend on those that are drawn with it.
        drawn = [
            self._drawer([scene], np.random.default_rng((self._seed, number, 1)))
            for number, scene in enumerate(scenes, start)
        ]
        return to_bytes(torch.cat(drawn))

    def captions(self, start: int, count: int, each: int, *, bound: bool = True) -> list[list[str]]:
        return [
            [self._scene(number, 2 + turn, bound=bound).caption for turn in range(each)]
            for number in range(start, start + count)
        ]

    def _scene(self, number: int, stream: int = 2, *, bound: bool = True) -> Scene:
        words = np.random.default_rng((self._seed, number, stream))
        swapped = words.random() < 0.5 and not bound
        return draw_composition(
            Split.TRAIN, np.random.default_rng((self._seed, number)), words, swapped=swapped
        )


def to_bytes(images: Float[Tensor, "n 3 h w"]) -> UInt8[np.ndarray, "n h w 3"]:
    """Images with values from 0 to 1 as bytes."""
    found: np.ndarray = (255 * images).round().byte().permute(0, 2, 3, 1).numpy()
    return found
