"""Images with texts beside them."""

from pathlib import Path

import pytest

from sds_clip.models.data.folder import read_folder
from sds_clip.models.data.pairs import MissingImage, Sample
from sds_clip.models.errors import DataError
from tests.pictures import save_pictures


def test_folder_pairs_images_with_the_lines_of_their_texts(tmp_path: Path) -> None:
    save_pictures(tmp_path, ["b.png", "sub/a.JPG".replace("JPG", "jpg"), "c.webp"])
    (tmp_path / "b.txt").write_text("first\n\n second \u2028same\r\n", encoding="utf-8")
    (tmp_path / "sub/a.txt").write_text("third")
    (tmp_path / "lonely.txt").write_text("no image")
    pairs = read_folder(tmp_path)
    assert [pairs.sample(index) for index in range(len(pairs))] == [
        Sample("b.png", ("first", "second \u2028same"), ((), ())),
        Sample("c.webp", (), ()),
        Sample("lonely", ("no image",), ((),)),
        Sample("sub/a.jpg", ("third",), ((),)),
    ]
    with pytest.raises(MissingImage, match="lonely"):
        pairs.image(2)


def test_folder_with_two_images_of_one_name_or_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no images"):
        read_folder(tmp_path)
    save_pictures(tmp_path, ["a.png", "a.jpg"])
    with pytest.raises(DataError, match=r"a\.jpg has the same name"):
        read_folder(tmp_path)
    with pytest.raises(DataError, match="none"):
        read_folder(tmp_path / "none")


def test_text_that_is_not_utf_8_is_named(tmp_path: Path) -> None:
    save_pictures(tmp_path, ["a.png"])
    (tmp_path / "a.txt").write_bytes(b"\xff\xff")
    with pytest.raises(DataError, match=r"a\.txt, line 1: the file is not UTF-8"):
        read_folder(tmp_path)
