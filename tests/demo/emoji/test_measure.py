from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from sds_clip.demo.emoji.draw import Drawer
from sds_clip.demo.emoji.measure import Served, compositions, named, names_set, watched, zero_shot
from sds_clip.demo.emoji.packages import HELD_OUT, Concept
from sds_clip.demo.emoji.pictures import Pictures
from sds_clip.demo.emoji.scenes import ZERO_SHOT_TEMPLATES, concept_split
from sds_clip.demo.emoji.table import table
from sds_clip.demo.world import Split
from sds_clip.models.checkpoints.load import load_clip
from tests.demo.emoji.worlds import little_world


@dataclass(frozen=True)
class ByColour:
    """Knows each concept by its colour in the picture's middle, and each text by the name in it."""

    pictures: Pictures

    def images(self, images: Tensor) -> Tensor:
        whole = self.pictures.pixels[self.pictures.of([HELD_OUT.name])][:, 32, 32, :3] / 255
        near = torch.cdist(images[:, :, 32, 32], torch.from_numpy(whole).float())
        return torch.eye(len(whole))[near.argmin(dim=1)]

    def texts(self, texts: Sequence[str]) -> Tensor:
        names = {
            form.format(each.name): n
            for n, each in enumerate(self.pictures.concepts)
            for form in ZERO_SHOT_TEMPLATES
        }
        return torch.eye(len(self.pictures.concepts))[[names[text] for text in texts]]


class Blind:
    """Sees and reads nothing."""

    def images(self, images: Tensor) -> Tensor:
        return torch.ones(len(images), 1)

    def texts(self, texts: Sequence[str]) -> Tensor:
        return torch.from_numpy(np.random.default_rng(0).uniform(size=(len(texts), 1))).float()


def test_who_knows_all_names_finds_all() -> None:
    pictures = little_world()
    found = zero_shot(ByColour(pictures), pictures)
    assert all(right.all() for right in found.values())
    assert len(found["all, top 1"]) == len(pictures.concepts)
    untrained = [each for each in pictures.concepts if concept_split(each) is not Split.TRAIN]
    assert len(found["untrained among themselves, top 1"]) == len(untrained)


def test_ranks_by_hand() -> None:
    names = [Concept(code, name, ()) for code, name in (("1", "cat"), ("2", "dog"), ("3", "key"))]
    scores = torch.tensor([[0.9, 0.1, 0.0], [0.9, 0.5, 0.0]])
    found = named(scores, names[:2], names)
    assert found["all, top 1"].tolist() == [True, False]
    assert found["all, top 5"].tolist() == [True, True]


def test_the_blind_are_at_chance() -> None:
    pictures = little_world()
    found = compositions(Blind(), Drawer(pictures, [HELD_OUT.name]), Split.VALIDATION, 256)
    assert found["image to text"].sum() <= 4
    assert not found["GroupMatch of places"].any()  # all sums are equal, and a tie is not right
    assert not found["GroupMatch of sizes"].any()


def test_a_quarter_is_watched_and_the_rest_not() -> None:
    pictures = little_world()
    images, shown, names = names_set(pictures, only_watched=True)
    rest = names_set(pictures, only_watched=False)[1]
    assert len(images) == len(shown)
    assert all(map(watched, shown))
    assert not any(map(watched, rest))
    assert 0 < len(shown) < len(names) / 2
    assert len(shown) + len(rest) == len(names)


def test_who_sees_nothing_names_nothing() -> None:
    pictures = little_world()
    found = zero_shot(Blind(), pictures)
    assert not found["all, top 1"].any()  # all scores are equal, and a tie is not right


def test_the_table_has_the_student_beside_the_baselines() -> None:
    demo_clip = load_clip("demo", device="cpu", precision="float32")
    lines = table(Served(demo_clip), little_world()).splitlines()
    assert [line.split("|")[1].strip() for line in lines if line.startswith("| ") and "---" not in line] == [
        "%",
        "the student",
        "the nearest picture",
        "a linear map",
        "%",
        "scenes of the held-out vendor",
        "scenes of the seen ones",
    ]
    assert "all, top 1 (n = 124)" in lines[0]
