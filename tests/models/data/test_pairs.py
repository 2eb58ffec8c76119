"""Samples whose images are files."""

from pathlib import Path

import pytest

from sds_clip.models.data.pairs import FilePairs, Sample, Subset, UnreadableImage
from tests.pictures import picture, save_pictures


def test_broken_image_is_unreadable_and_named(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(picture(0)[:40])
    pairs = FilePairs([Sample("a.png", ("x",), ((),)), Sample("n\0", ("x",), ((),))], tmp_path)
    for index, name in enumerate(["a.png", "n\0"]):
        with pytest.raises(UnreadableImage, match=name):
            pairs.image(index)


def test_subset_gives_the_chosen_in_their_order(tmp_path: Path) -> None:
    names = ["a.png", "b.png", "c.png"]
    save_pictures(tmp_path, names)
    whole = FilePairs([Sample(name, ("x",), ((),)) for name in names], tmp_path)
    chosen = Subset(whole, [2, 0])
    assert [chosen.sample(index).name for index in range(len(chosen))] == ["c.png", "a.png"]
    assert chosen.image(0).getpixel((0, 0)) == (2, 2, 2)
    assert len({whole.content_hash, chosen.content_hash, Subset(whole, [0, 2]).content_hash}) == 3
