import torch

from sds_clip.demo.emoji.baselines import linear, nearest
from sds_clip.demo.emoji.packages import HELD_OUT
from sds_clip.demo.emoji.scenes import concept_split
from sds_clip.demo.world import Split
from tests.demo.emoji.worlds import little_world


def test_both_find_what_other_vendors_drew_alike_and_nothing_that_they_were_not_shown() -> None:
    pictures = little_world()
    own = torch.from_numpy(pictures.concept[pictures.of([HELD_OUT.name])])
    seen = torch.tensor([concept_split(pictures.concepts[place]) is Split.TRAIN for place in own])
    assert 0 < (~seen).sum() < len(seen) / 4
    by_nearest, by_words = nearest(pictures).argmax(dim=1), linear(pictures).argmax(dim=1)
    assert (by_nearest == own)[seen].all()
    assert not (by_nearest == own)[~seen].any()
    assert (by_words == own)[seen].float().mean() > 10 / len(
        seen
    )  # ten times chance: 124 colours are not linear
