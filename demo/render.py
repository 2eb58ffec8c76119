"""Renders scenes: signed distances to sixteen shapes, antialiased over one pixel."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import numpy as np
from jaxtyping import UInt8
from numpy.typing import NDArray

from sds_clip.demo.world import IMAGE_SIZE_PX, Scene, Thing

Array = NDArray[np.floating[Any]]
Point = tuple[float, float]

ALPHA_LEVELS = 15  # few enough that an image of two objects fits a palette, so its PNG stays small


def render(scene: Scene) -> UInt8[np.ndarray, "64 64 3"]:
    """Draw a scene in RGB; equal scenes give equal bytes."""
    canvas = np.empty((IMAGE_SIZE_PX, IMAGE_SIZE_PX, 3), dtype=np.float32)
    canvas[:] = scene.background
    for thing in scene.things:
        _paint(canvas, thing)
    return np.rint(canvas).astype(np.uint8)


def _paint(canvas: Array, thing: Thing) -> None:
    alpha = coverage(thing.shape, thing.radius_px)
    reach = alpha.shape[0] // 2
    left, top = max(thing.x_px - reach, 0), max(thing.y_px - reach, 0)
    window = canvas[top : thing.y_px + reach + 1, left : thing.x_px + reach + 1]
    skip_x, skip_y = left - (thing.x_px - reach), top - (thing.y_px - reach)
    part = alpha[skip_y : skip_y + window.shape[0], skip_x : skip_x + window.shape[1], None]
    window += part * (np.array(thing.rgb, dtype=np.float32) - window)


@cache
def coverage(shape: str, radius_px: int) -> Array:
    """The share of each pixel that a shape covers, 0 to 1, on a square grid around its centre."""
    reach = radius_px + 2
    axis = np.arange(-reach, reach + 1, dtype=np.float32) / radius_px
    x, y = np.meshgrid(axis, axis)  # y grows downwards
    distance_px = _DISTANCES[shape](x, y) * radius_px
    levels = np.rint(np.clip(0.5 - distance_px, 0, 1) * ALPHA_LEVELS)
    alpha: Array = (levels / ALPHA_LEVELS).astype(np.float32)
    alpha.flags.writeable = False  # one array serves every scene
    return alpha


def _disc(x: Array, y: Array, centre: Point, radius: float) -> Array:
    distance: Array = np.hypot(x - centre[0], y - centre[1]) - radius
    return distance


def _polygon(x: Array, y: Array, corners: Sequence[Point]) -> Array:
    """Exact signed distance to a simple polygon: nearest edge, sign by the crossing rule."""
    nearest = np.full_like(x, np.inf)
    inside = np.zeros(x.shape, dtype=bool)
    for (x0, y0), (x1, y1) in zip(corners, [*corners[1:], corners[0]], strict=True):
        dx, dy = x1 - x0, y1 - y0
        along = np.clip(((x - x0) * dx + (y - y0) * dy) / (dx * dx + dy * dy), 0, 1)
        nearest = np.minimum(nearest, np.hypot(x - x0 - along * dx, y - y0 - along * dy))
        if dy:
            inside ^= ((y0 > y) != (y1 > y)) & (x < x0 + (y - y0) / dy * dx)
    return np.where(inside, -nearest, nearest)


def _ellipse(x: Array, y: Array, half_width: float, half_height: float) -> Array:
    """First-order distance to an ellipse: the level set divided by its gradient's length."""
    level = np.hypot(x / half_width, y / half_height) + 1e-6
    slope = np.hypot(x / half_width**2, y / half_height**2) + 1e-6
    distance: Array = level * (level - 1) / slope
    return distance


def _box(half_width: float, half_height: float) -> list[Point]:
    return [
        (-half_width, -half_height), (half_width, -half_height),
        (half_width, half_height), (-half_width, half_height),
    ]  # fmt: skip


def _star() -> list[Point]:
    angles = -np.pi / 2 + np.arange(10) * np.pi / 5
    radii = np.where(np.arange(10) % 2 == 0, 1.05, 0.45)
    return [(float(r * np.cos(a)), float(r * np.sin(a) + 0.06)) for r, a in zip(radii, angles, strict=True)]


def _cross(x: Array, y: Array) -> Array:
    upright, level = _polygon(x, y, _box(0.32, 0.98)), _polygon(x, y, _box(0.98, 0.32))
    return np.minimum(upright, level)


def _heart(x: Array, y: Array) -> Array:
    lobes = np.minimum(_disc(x, y, (-0.45, -0.35), 0.5), _disc(x, y, (0.45, -0.35), 0.5))
    point = _polygon(x, y, [(-0.86, -0.06), (0.0, -0.4), (0.86, -0.06), (0.0, 0.95)])
    return np.minimum(lobes, point)


def _drop(x: Array, y: Array) -> Array:
    cone = _polygon(x, y, [(0.0, -1.0), (0.54, 0.06), (-0.54, 0.06)])
    return np.minimum(_disc(x, y, (0.0, 0.36), 0.62), cone)


_DISTANCES: dict[str, Callable[[Array, Array], Array]] = {
    "circle": lambda x, y: _disc(x, y, (0, 0), 0.95),
    "square": lambda x, y: _polygon(x, y, _box(0.84, 0.84)),
    "triangle": lambda x, y: _polygon(x, y, [(0, -0.95), (1.0, 0.8), (-1.0, 0.8)]),
    "diamond": lambda x, y: _polygon(x, y, [(0, -1.05), (0.72, 0), (0, 1.05), (-0.72, 0)]),
    "star": lambda x, y: _polygon(x, y, _star()),
    "cross": _cross,
    "heart": _heart,
    "ring": lambda x, y: np.abs(_disc(x, y, (0, 0), 0.72)) - 0.24,
    "moon": lambda x, y: np.maximum(_disc(x, y, (0, 0), 0.98), -_disc(x, y, (0.5, 0), 0.78)),
    "arrow": lambda x, y: _polygon(
        x, y, [(-1, -0.28), (0.1, -0.28), (0.1, -0.85), (1, 0), (0.1, 0.85), (0.1, 0.28), (-1, 0.28)]
    ),
    "oval": lambda x, y: _ellipse(x, y, 1.0, 0.55),
    "dome": lambda x, y: np.maximum(_disc(x, y, (0, 0.5), 1.0), y - 0.5),
    "drop": _drop,
    "frame": lambda x, y: np.maximum(_polygon(x, y, _box(0.88, 0.88)), -_polygon(x, y, _box(0.46, 0.46))),
    "hourglass": lambda x, y: _polygon(
        x, y, [(-0.8, -0.95), (0.8, -0.95), (0.12, 0), (0.8, 0.95), (-0.8, 0.95), (-0.12, 0)]
    ),
    "bolt": lambda x, y: _polygon(
        x, y, [(0.25, -1.05), (-0.7, 0.2), (-0.05, 0.2), (-0.3, 1.05), (0.7, -0.25), (0.05, -0.25)]
    ),
}
