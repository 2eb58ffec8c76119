import numpy as np

from sds_clip.demo.emoji.lessons import PictureLessons
from sds_clip.demo.emoji.scenes import NUMBERS
from tests.demo.emoji.worlds import little_world

LESSONS = PictureLessons(little_world(), seed=3)


def test_an_image_and_its_captions_are_by_its_number() -> None:
    images, captions = LESSONS.images(0, 6), LESSONS.captions(0, 6, 2)
    assert (LESSONS.images(4, 2) == images[4:]).all()
    assert LESSONS.captions(4, 2, 2) == captions[4:]
    assert (images.shape, images.dtype) == ((6, 64, 64, 3), np.uint8)
    assert len({image.tobytes() for image in images}) == 6


def test_captions_of_an_image_name_the_same_things_in_several_ways() -> None:
    for each in LESSONS.captions(0, 100, 4):
        named = [
            {word for word in text.split() if word in ("key", "drum", "cat", "dog", "snail")} for text in each
        ]
        assert named == [named[0]] * 4
    assert sum(len(set(each)) > 1 for each in LESSONS.captions(0, 100, 4)) > 50


def test_what_is_not_bound_has_the_words_and_tells_nothing() -> None:
    bound, loose = (LESSONS.captions(0, 400, 1, bound=bound) for bound in (True, False))
    differs = 0
    for (one,), (other,) in zip(bound, loose, strict=True):
        assert len(one.split()) == len(other.split())
        differs += one != other
        if one.startswith(NUMBERS):
            assert one == other
    assert 0.25 < differs / 400 < 0.5  # half of those that bind
