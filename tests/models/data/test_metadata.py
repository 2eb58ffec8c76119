"""A folder's `metadata.csv`: read as its `metadata.jsonl`, and what is wrong with it told by line."""

import json
from pathlib import Path

import pytest

from sds_clip.models.data.check import check_pairs
from sds_clip.models.data.open import open_pairs
from sds_clip.models.data.pairs import Sample
from sds_clip.models.errors import DataError
from tests.pictures import save_pictures

NAMES = ["a.png", "sub/b.png"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_pictures(tmp_path, NAMES)
    return tmp_path


def write(folder: Path, text: str | bytes) -> Path:
    file = folder / "metadata.csv"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return file


def test_rows_give_the_captions_of_their_images(folder: Path) -> None:
    file = write(
        folder,
        '\ufefffile_name,text,neg_caption,split\r\nsub/b.png,"a dog, and\na cat",,train\r\n'
        "a.png,a cat,['a act'],train\r\nsub/b.png,a wolf,,train\r\n",
    )
    expected = [
        Sample("sub/b.png", ("a dog, and\na cat", "a wolf"), ((), ())),
        Sample("a.png", ("a cat",), (("a act",),)),
    ]
    for path in (folder, file):
        assert list(open_pairs(path, confined=True).samples) == expected


def test_training_sees_the_same_as_by_metadata_jsonl(folder: Path) -> None:
    file = write(folder, "file_name,text\na.png,a cat\nsub/b.png,a dog\n")
    by_csv = check_pairs(open_pairs(folder), workers=1).pairs.content_hash
    file.unlink()
    lines = [{"file_name": name, "text": text} for name, text in zip(NAMES, ("a cat", "a dog"), strict=True)]
    (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, lines)))
    assert check_pairs(open_pairs(folder), workers=1).pairs.content_hash == by_csv


def test_columns_may_have_other_names_and_tabs_between_them(folder: Path) -> None:
    write(folder, "picture\tsaid\na.png\ta cat, and more\n")
    pairs = open_pairs(folder, image_key="picture", caption_key="said")
    assert pairs.sample(0).captions == ("a cat, and more",)


def test_images_and_captions_that_are_missing_are_counted_with_their_lines(folder: Path) -> None:
    (folder / "c.png").write_bytes(b"no image")
    write(folder, "file_name,text\na.png,a cat\nno.png,nothing\nc.png,a dog\nsub/b.png,\n")
    report = check_pairs(open_pairs(folder), max_bad_share=1.0).report
    assert report.usable == 1
    (missing,), (unreadable,), (caption,) = (finding.listed for finding in report.findings.values())
    assert missing.message.startswith("no.png (line 3): ")
    assert unreadable.message.startswith("c.png (line 4): ")
    assert caption.message == "sub/b.png (line 5) has an empty caption."


def test_two_files_of_captions_are_refused(folder: Path) -> None:
    write(folder, "file_name,text\na.png,a cat\n")
    (folder / "metadata.jsonl").write_text('{"file_name": "a.png", "text": "a dog"}')
    with pytest.raises(DataError, match=r"holds metadata\.jsonl and metadata\.csv; keep the one"):
        open_pairs(folder)


def test_splits_are_named(tmp_path: Path) -> None:
    for split in ("train", "test"):
        (tmp_path / split).mkdir()
        write(tmp_path / split, "file_name,text\na.png,a cat\n")
    with pytest.raises(DataError, match="holds the splits test, train"):
        open_pairs(tmp_path)
