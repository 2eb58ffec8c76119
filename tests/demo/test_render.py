from itertools import combinations

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from sds_clip.demo.render import coverage, render
from sds_clip.demo.world import BACKGROUND, COLOURS, RADII_PX, SHAPES, Scene, Thing

GREY = (BACKGROUND,) * 3
SCALE = 16


def supersampled(radius_px: int, corners: list[tuple[float, float]] | None) -> NDArray[np.float64]:
    """Coverage by PIL's own drawing, 16 times larger and averaged; no corners means the circle."""
    side = 2 * (radius_px + 2) + 1
    middle = side * SCALE / 2
    image = Image.new("L", (side * SCALE, side * SCALE))
    draw = ImageDraw.Draw(image)
    unit = radius_px * SCALE
    if corners is None:
        draw.ellipse(
            [middle - 0.95 * unit, middle - 0.95 * unit, middle + 0.95 * unit, middle + 0.95 * unit], 255
        )
    else:
        draw.polygon([(middle + x * unit, middle + y * unit) for x, y in corners], 255)
    covered: NDArray[np.float64] = np.asarray(image).reshape(side, SCALE, side, SCALE).mean(axis=(1, 3)) / 255
    return covered


@pytest.mark.parametrize("radius_px", [7, 8, 12, 14])
@pytest.mark.parametrize(
    ("shape", "corners"),
    [
        ("circle", None),
        ("square", [(-0.84, -0.84), (0.84, -0.84), (0.84, 0.84), (-0.84, 0.84)]),
        ("triangle", [(0, -0.95), (1.0, 0.8), (-1.0, 0.8)]),
        ("diamond", [(0, -1.05), (0.72, 0), (0, 1.05), (-0.72, 0)]),
    ],
)
def test_shape_covers_what_pil_draws(
    shape: str, corners: list[tuple[float, float]] | None, radius_px: int
) -> None:
    expected = supersampled(radius_px, corners)
    assert (
        np.abs(coverage(shape, radius_px) - expected).max() < 0.3
    )  # at a sharp corner; along edges far less
    assert coverage(shape, radius_px).sum() == pytest.approx(expected.sum(), rel=0.02)


@pytest.mark.parametrize("radius_px", [radius for radii in RADII_PX.values() for radius in radii])
def test_shapes_of_one_size_are_easily_told_apart(radius_px: int) -> None:
    for one, other in combinations(SHAPES, 2):
        a, b = coverage(one, radius_px), coverage(other, radius_px)
        overlap = np.minimum(a, b).sum() / np.maximum(a, b).sum()
        assert overlap < 0.85, (one, other, overlap)


@pytest.mark.parametrize("shape", SHAPES)
def test_edges_are_antialiased_and_nothing_is_cut_off(shape: str) -> None:
    alpha = coverage(shape, 13)
    assert alpha.max() == 1
    assert ((alpha > 0) & (alpha < 1)).sum() >= 12
    assert alpha[[0, -1]].max() == 0
    assert alpha[:, [0, -1]].max() == 0


def test_colours_are_far_apart_and_off_the_background() -> None:
    for one, other in combinations([*COLOURS.values(), GREY], 2):
        assert np.linalg.norm(np.subtract(one, other)) > 60


def test_object_stands_where_the_scene_says() -> None:
    scene = Scene((Thing("square", "blue", "small", 7, COLOURS["blue"], 20, 45),), None, GREY)
    pixels = render(scene)
    assert pixels.shape == (64, 64, 3)
    assert pixels.dtype == np.uint8
    assert tuple(pixels[45, 20]) == COLOURS["blue"]
    assert tuple(pixels[20, 45]) == GREY
    rows, columns = np.nonzero((pixels != GREY).any(axis=2))
    assert (rows.mean(), columns.mean()) == (45, 20)


def test_object_over_the_edge_is_cut_and_not_wrapped() -> None:
    scene = Scene((Thing("circle", "black", "large", 12, COLOURS["black"], 2, 62),), None, GREY)
    pixels = render(scene)
    assert tuple(pixels[62, 2]) == COLOURS["black"]
    assert (pixels[:40] == GREY).all()
    assert (pixels[:, 20:] == GREY).all()
