import io
import json
import zipfile
from pathlib import Path

import numpy as np
import PIL.Image

from sds_clip.demo.emoji.build import attribution, pack
from sds_clip.demo.emoji.packages import HELD_OUT, VENDORS
from sds_clip.demo.emoji.pictures import load_pictures, save_pictures
from tests.demo.emoji.worlds import little_world


def test_the_archive_has_the_held_out_vendors_pictures_and_names_and_no_other(tmp_path: Path) -> None:
    pictures = little_world()
    pack(pictures, tmp_path / "one.zip")
    pack(pictures, tmp_path / "two.zip")
    assert (tmp_path / "one.zip").read_bytes() == (tmp_path / "two.zip").read_bytes()
    with zipfile.ZipFile(tmp_path / "one.zip") as archive:
        names = [json.loads(line) for line in archive.read("names.jsonl").splitlines()]
        assert [each["name"] for each in names] == [each.name for each in pictures.concepts]
        assert len(archive.namelist()) == 1 + len(names)
        for each, place in zip(names, pictures.of([HELD_OUT.name]), strict=True):
            found = PIL.Image.open(io.BytesIO(archive.read(f"{each['code']}.webp"))).convert("RGBA")
            opaque = pictures.pixels[place, :, :, 3] > 0
            assert (np.array(found)[opaque] == pictures.pixels[place][opaque]).all()


def test_everybody_who_drew_is_named_with_the_licence() -> None:
    assert all(f"{each.name} by {each.author}" in attribution() for each in VENDORS)
    assert all(each.licence in attribution() for each in VENDORS)


def test_pictures_come_back_as_they_were(tmp_path: Path) -> None:
    pictures = little_world(4)
    with (tmp_path / "pictures.npz").open("wb") as file:
        save_pictures(pictures, file)
    found = load_pictures(tmp_path / "pictures.npz")
    assert found.concepts == pictures.concepts
    assert (found.pixels == pictures.pixels).all()
    assert (found.concept == pictures.concept).all()
    assert (found.vendor == pictures.vendor).all()
