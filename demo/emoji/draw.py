"""Draws scenes: each picture is turned, scaled and put on the ground, many scenes at once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor

from sds_clip.demo.emoji.pictures import SIDE_PX, Pictures
from sds_clip.demo.emoji.scenes import Layer, Scene


class Drawer:
    """Draws with the pictures of some vendors. Each layer's vendor is drawn among those that have its concept."""

    def __init__(self, pictures: Pictures, vendors: Sequence[str]) -> None:
        of_vendors = pictures.of(vendors)
        self._places: dict[str, list[int]] = {}
        for place, concept in enumerate(pictures.concept[of_vendors]):
            self._places.setdefault(pictures.concepts[concept].name, []).append(place)
        self._large = pictures.tensor(of_vendors)
        self._small = _halved(self._large)

    @property
    def names(self) -> list[str]:
        """The names of all concepts that can be drawn."""
        return list(self._places)

    def __call__(
        self, scenes: Sequence[Scene], rng: np.random.Generator, *, jitter: float = 0.0
    ) -> Float[Tensor, "b 3 64 64"]:
        """Draw scenes with values from 0 to 1. With jitter, colours vary by this share."""
        grounds = torch.tensor([scene.ground for scene in scenes])[:, :, None, None]
        canvas = grounds.repeat(1, 1, SIDE_PX, SIDE_PX)
        for depth in range(max(len(scene.layers) for scene in scenes)):
            rows = [row for row, scene in enumerate(scenes) if len(scene.layers) > depth]
            for source in (self._large, self._small):
                of = [row for row in rows if _is_small(scenes[row].layers[depth]) is (source is self._small)]
                if of:
                    layers = [scenes[row].layers[depth] for row in of]
                    chosen = source[[self._place(each.concept, rng) for each in layers]].float() / 255
                    put = _put(chosen, layers, rng, jitter)
                    canvas[of] = canvas[of] * (1 - put[:, 3:]) + put[:, :3]
        return canvas.clamp_(0, 1)

    def _place(self, concept: str, rng: np.random.Generator) -> int:
        places = self._places[concept]
        return places[int(rng.integers(len(places)))]


def _is_small(layer: Layer) -> bool:
    return layer.side <= SIDE_PX / 2


def _put(
    drawn: Float[Tensor, "b 4 s s"], layers: Sequence[Layer], rng: np.random.Generator, jitter: float
) -> Float[Tensor, "b 4 64 64"]:
    """Put pictures where the layers say, with premultiplied alpha."""
    colour, alpha = drawn[:, :3], drawn[:, 3:]
    if jitter:
        colour = _jittered(colour, rng, jitter)
    drawn = torch.cat([colour * alpha, alpha], dim=1)
    angle = np.array([each.angle for each in layers])
    scale = SIDE_PX / np.array([each.side for each in layers])
    x, y = (2 * np.array([getattr(each, axis) for each in layers]) / SIDE_PX - 1 for axis in "xy")
    cosine, sine = scale * np.cos(angle), scale * np.sin(angle)
    matrix = np.stack([cosine, sine, -cosine * x - sine * y, -sine, cosine, sine * x - cosine * y], axis=1)
    theta = torch.from_numpy(matrix.reshape(-1, 2, 3)).float()
    grid = F.affine_grid(theta, [len(layers), 4, SIDE_PX, SIDE_PX], align_corners=False)
    return F.grid_sample(drawn, grid, align_corners=False)


def on_white(pixels: UInt8[Tensor, "n 4 h w"]) -> Float[Tensor, "n 3 h w"]:
    """Put whole pictures on white, with values from 0 to 1."""
    values = pixels.float() / 255
    return values[:, :3] * values[:, 3:] + 1 - values[:, 3:]


def _halved(pixels: Tensor) -> Tensor:
    """Half the side, averaged with premultiplied alpha."""
    values = pixels.float()
    colour, alpha = values[:, :3], values[:, 3:] / 255
    alpha, whole = F.avg_pool2d(alpha, 2), F.avg_pool2d(colour * alpha, 2)
    return torch.cat([whole / alpha.clamp_min(1e-6), 255 * alpha], dim=1).round().clamp(0, 255).byte()


def _jittered(colour: Tensor, rng: np.random.Generator, share: float) -> Tensor:
    """Vary gains, saturation and brightness of each picture."""
    count = len(colour)
    gains = torch.from_numpy(rng.uniform(1 - share / 2, 1 + share / 2, (count, 3, 1, 1))).float()
    saturation, shift = (
        torch.from_numpy(rng.uniform(low, high, (count, 1, 1, 1))).float()
        for low, high in ((1 - share, 1 + share), (-share / 3, share / 3))
    )
    grey = colour.mean(dim=1, keepdim=True)
    return ((grey + saturation * (colour - grey)) * gains + shift).clamp(0, 1)
