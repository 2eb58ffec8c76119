"""An encoder whose embeddings can be computed by hand: an image's mean colour, and 1, scaled to length 1.

As a program it embeds a folder in batches of two, and writes a line for each batch that it has computed:
`python -m tests.models.vectors.colours FOLDER OUT CALLS`.
"""

import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from sds_clip.models.images.decode import decode_image
from sds_clip.models.vectors.embed import Options, embed
from sds_clip.models.vectors.encoder import Encoder


class Colours(Encoder):
    def __init__(self, version: str = "colours", told: Callable[[int], None] = lambda images: None) -> None:
        self.version, self.dimensions = version, 4
        self.reference = self.precision = None
        self.decoding = 1
        self._told = told

    def prepare(self, data: bytes) -> np.ndarray:
        return np.asarray(decode_image(data), np.float32).mean(axis=(0, 1))

    def encode(self, prepared: Sequence[np.ndarray]) -> list[np.ndarray]:
        self._told(len(prepared))
        return [colour(*pixel) for pixel in prepared]


def colour(red: float, green: float, blue: float) -> np.ndarray:
    vector = np.array([red, green, blue, 1], np.float32)
    return np.asarray(vector / np.linalg.norm(vector))


def main(folder: str, out: str, calls: str) -> None:
    with Path(calls).open("a") as file:

        def told(images: int) -> None:
            print(images, file=file, flush=True)
            time.sleep(0.02)

        embed([folder], Path(out), Colours(told=told), Options(batch_size=2, threads=2))


if __name__ == "__main__":
    main(*sys.argv[1:])
