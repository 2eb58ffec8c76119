"""The controls that no option of a run makes: smoothed targets, and a teacher that is shown something else."""

import pytest
import torch

from sds_clip.demo.experiment import Misled
from sds_clip.demo.scores import OtherImages, smoothed
from sds_clip.demo.training_set import DemoPairs
from sds_clip.models.losses.score import teacher_choice
from sds_clip.models.teacher.load import load_teacher


def test_smoothed_targets_give_the_own_caption_its_share_and_the_others_equal_ones() -> None:
    candidates = [("a", "b", "c", "d"), ("e", "f")]
    errors = smoothed(0.7, 0.003)([0, 1], candidates, 4)
    valid = torch.tensor([[True] * 4, [True, True, False, False]])
    chosen = teacher_choice(errors, temperature=0.003, valid=valid).exp()
    assert chosen[0].tolist() == pytest.approx([0.7, 0.1, 0.1, 0.1])
    assert chosen[1].tolist() == pytest.approx([0.7, 0.3, 0.0, 0.0])


def test_other_images_are_the_next_ones_with_the_captions_kept() -> None:
    pairs = DemoPairs(4)
    others = OtherImages(pairs)
    for index in range(4):
        assert others.sample(index) == pairs.sample(index)
        assert others.image(index).tobytes() == pairs.image((index + 1) % 4).tobytes()
    assert others.content_hash != pairs.content_hash


def test_a_misled_teacher_takes_each_caption_for_the_one_before() -> None:
    teacher = load_teacher("demo", device="cpu", precision="float32")
    captions = ["a red dog", "a blue cat to the left of a green mug", "a pear"]
    plain = teacher.encode_captions(captions)
    assert not torch.equal(plain[0], plain[1])
    assert torch.equal(Misled.of(teacher).encode_captions(captions), plain[[2, 0, 1]])
