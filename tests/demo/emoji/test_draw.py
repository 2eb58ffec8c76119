import numpy as np
import pytest
import torch

from sds_clip.demo.emoji.draw import Drawer, on_white
from sds_clip.demo.emoji.packages import HELD_OUT, SEEN, Concept
from sds_clip.demo.emoji.pictures import SIDE_PX, Pictures
from sds_clip.demo.emoji.scenes import Layer, Scene

BLACK = 0.0, 0.0, 0.0


@pytest.fixture
def pictures() -> Pictures:
    """A concept that is half red, half transparent, by a vendor, and all green by the one that is held out."""
    half = np.zeros((SIDE_PX, SIDE_PX, 4), np.uint8)
    half[:, :32] = 255, 0, 0, 255
    green = np.full((SIDE_PX, SIDE_PX, 4), (0, 255, 0, 255), np.uint8)
    return Pictures([Concept("1", "flag", ())], np.array([0, 0]), np.array([0, 5]), np.stack([half, green]))


def drawn(pictures: Pictures, vendor: str, *layers: Layer) -> torch.Tensor:
    return Drawer(pictures, [vendor])([Scene(layers, BLACK, "")], np.random.default_rng(0))[0]


def test_a_whole_picture_is_drawn_as_it_is(pictures: Pictures) -> None:
    image = drawn(pictures, SEEN[0].name, Layer("flag", 32, 32, SIDE_PX))
    assert image[0, :, :32].min() > 0.9999
    assert image[:, :, 32:].max() == 0


def test_a_picture_is_put_where_the_layer_says(pictures: Pictures) -> None:
    image = drawn(pictures, HELD_OUT.name, Layer("flag", 16, 40, 20))
    inside = torch.zeros(SIDE_PX, SIDE_PX, dtype=torch.bool)
    inside[31:49, 7:25] = True
    outside = torch.ones(SIDE_PX, SIDE_PX, dtype=torch.bool)
    outside[29:51, 5:27] = False
    assert image[1][inside].min() > 0.99
    assert image[1][outside].max() == 0


def test_a_quarter_turn(pictures: Pictures) -> None:
    image = drawn(pictures, SEEN[0].name, Layer("flag", 32, 32, SIDE_PX, np.pi / 2))
    assert image[0, :31].min() > 0.99  # the left half is on top
    assert image[0, 33:].max() < 0.01


def test_a_later_layer_covers_an_earlier_one(pictures: Pictures) -> None:
    both = Drawer(pictures, [SEEN[0].name, HELD_OUT.name])
    scene = Scene((Layer("flag", 32, 32, SIDE_PX), Layer("flag", 32, 32, SIDE_PX)), BLACK, "")
    found = both([scene] * 30, np.random.default_rng(0))
    assert {tuple(image[:2, 32, 10].tolist()) for image in found} == {(1.0, 0.0), (0.0, 1.0)}


def test_only_the_chosen_vendors_are_drawn(pictures: Pictures) -> None:
    with pytest.raises(KeyError):
        drawn(pictures, SEEN[1].name, Layer("flag", 32, 32, SIDE_PX))


def test_jitter_changes_colours_and_not_the_ground(pictures: Pictures) -> None:
    drawer, scene = (
        Drawer(pictures, [SEEN[0].name]),
        Scene((Layer("flag", 32, 32, SIDE_PX),), (0.5, 0.5, 0.5), ""),
    )
    found = drawer([scene] * 8, np.random.default_rng(0), jitter=0.3)
    assert len({round(value, 3) for value in found[:, 0, 32, 10].tolist()}) > 1
    assert (found[:, :, 32, 50] == 0.5).all()


def test_pictures_on_white(pictures: Pictures) -> None:
    pixels = torch.from_numpy(pictures.pixels[:1]).permute(0, 3, 1, 2)
    assert (torch.tensor([[1.0, 0, 0], [1, 1, 1]]) == on_white(pixels)[0, :, 0, [0, 63]].T).all()
