"""Latents of training images are the teacher's own, and each image is encoded once."""

import PIL.Image
import pytest
import torch

from sds_clip.models.clip.model import Clip
from sds_clip.models.data.pairs import PairSet, Subset
from sds_clip.models.teacher.pixels import teacher_view
from sds_clip.models.teacher.teacher import Teacher
from sds_clip.models.training import latents as module
from sds_clip.models.training.latents import Latents


class Watched(Subset):
    """All of some pairs. It keeps which images are read."""

    def __init__(self, pairs: PairSet) -> None:
        super().__init__(pairs, range(len(pairs)))
        self.read: list[int] = []

    def image(self, index: int) -> PIL.Image.Image:
        self.read.append(index)
        return super().image(index)


def test_latents_are_the_teacher_s_and_are_kept(base: Clip, teacher: Teacher, pairs: PairSet) -> None:
    watched = Watched(pairs)
    latents = Latents(base, teacher, watched)
    view = teacher_view(base, teacher.resolution_px)
    found = latents([3, 5, 3])
    expected = [teacher.encode_image(view(pairs.image(index))[None])[0] for index in (3, 5, 3)]
    assert torch.equal(found, torch.stack(expected))
    assert torch.equal(latents([5]), found[1:2])
    assert watched.read == [3, 5]


def test_no_more_is_kept_than_there_is_room_for(
    base: Clip, teacher: Teacher, pairs: PairSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_BYTES", 4 * 8 * 8 * 4)  # one image's latents
    watched = Watched(pairs)
    latents = Latents(base, teacher, watched)
    for _ in range(2):
        latents([0, 1])
    assert watched.read == [0, 1, 1]
