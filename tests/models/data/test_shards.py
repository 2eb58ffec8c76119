"""WebDataset shards, read at any place in any order."""

import json
from pathlib import Path

import pytest
import webdataset

from sds_clip.models.data.pairs import MissingImage, UnreadableImage
from sds_clip.models.data.shards import expand, read_shards
from sds_clip.models.errors import DataError
from tests.pictures import picture
from tests.tars import save_tar


def numbered(first: int, count: int) -> dict[str, bytes]:
    members: dict[str, bytes] = {}
    for number in range(first, first + count):
        members[f"{number:04d}.png"] = picture(number)
        members[f"{number:04d}.txt"] = f"caption {number}\n".encode()
    return members


def test_brace_range_is_read_in_any_order(tmp_path: Path) -> None:
    for shard in range(9, 12):
        save_tar(tmp_path / f"{shard:05d}.tar", numbered(10 * shard, 2))
    pairs = read_shards(f"{tmp_path}/{{00009..00011}}.tar")
    assert [pairs.sample(index).captions for index in range(6)] == [
        (f"caption {number}",) for number in (90, 91, 100, 101, 110, 111)
    ]
    for index, number in ((4, 110), (0, 90), (3, 101)):
        assert pairs.image(index).getpixel((0, 0)) == (number, number, number)
    assert pairs.sample(3).name == "00010.tar/0101"


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # webdataset leaves files open
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_samples_are_those_that_webdataset_yields(tmp_path: Path) -> None:
    with webdataset.TarWriter(str(tmp_path / "a.tar")) as writer:
        for number in range(3):
            writer.write({"__key__": f"dir/x{number}", "jpg": picture(number, "JPEG"), "txt": f"c {number}"})
    expected = list(webdataset.WebDataset(str(tmp_path / "a.tar"), shardshuffle=False))
    pairs = read_shards(str(tmp_path))
    assert [pairs.sample(index).name for index in range(3)] == [f"a.tar/{row['__key__']}" for row in expected]
    assert [pairs.sample(index).captions[0].encode() for index in range(3)] == [
        row["txt"] for row in expected
    ]
    assert [pairs.read(index) for index in range(3)] == [row["jpg"] for row in expected]


def test_caption_comes_from_json_where_there_is_no_text(tmp_path: Path) -> None:
    members = {
        "a.json": json.dumps({"caption": "from json", "url": "x"}).encode(),
        "a.webp": picture(1, "WEBP"),
        "b.jpeg": picture(2, "JPEG"),
        "b.json": b'{"caption": null}',
        "c.png": picture(3),
        "c.json": b'{"caption": "not this"}',
        "c.txt": b"this",
        "d.txt": b"no image",
        "e.png": picture(4),
        "__MACOSX/x.DS_Store": b"",
    }
    pairs = read_shards(str(save_tar(tmp_path / "a.tar", members)))
    assert [pairs.sample(index).captions for index in range(5)] == [
        ("from json",), ("",), ("this",), ("no image",), (),
    ]  # fmt: skip
    with pytest.raises(MissingImage, match=r"a\.tar/d"):
        pairs.read(3)


def test_one_key_in_two_shards_is_two_samples(tmp_path: Path) -> None:
    for name in ("a.tar", "b.tar"):
        save_tar(tmp_path / name, numbered(0, 1))
    pairs = read_shards(f"{tmp_path}/{{a,b}}.tar")
    assert [pairs.sample(index).name for index in range(2)] == ["a.tar/0000", "b.tar/0000"]


def test_braces_expand_as_a_shell_does() -> None:
    assert [str(path) for path in expand("{a,b}/{8..10}.tar")] == [
        "a/8.tar", "a/9.tar", "a/10.tar", "b/8.tar", "b/9.tar", "b/10.tar",
    ]  # fmt: skip
    assert [str(path) for path in expand("{098..100}.tar")] == ["098.tar", "099.tar", "100.tar"]
    with pytest.raises(DataError, match="range"):
        list(expand("{3..1}.tar"))
    assert str(next(expand("{0..999999999999}.tar"))) == "0.tar"


def test_missing_shard_of_a_range_is_named(tmp_path: Path) -> None:
    save_tar(tmp_path / "0.tar", numbered(0, 1))
    with pytest.raises(DataError, match=r"1\.tar"):
        read_shards(f"{tmp_path}/{{0..1}}.tar")


def test_compressed_and_cut_shards_are_refused(tmp_path: Path) -> None:
    compressed = save_tar(tmp_path / "z.tar", numbered(0, 2), "w:gz")
    whole = save_tar(tmp_path / "w.tar", numbered(0, 2)).read_bytes()
    cut = tmp_path / "c.tar"
    cut.write_bytes(whole[: 512 + 20])
    (tmp_path / "e.tar").write_bytes(b"")
    for shard in (compressed, cut, tmp_path / "e.tar"):
        with pytest.raises(DataError, match=rf"{shard.name}:? is not a"):
            read_shards(str(shard))


def test_shard_that_shrinks_after_indexing_is_reported_by_the_sample(tmp_path: Path) -> None:
    shard = save_tar(tmp_path / "a.tar", numbered(0, 1))
    pairs = read_shards(str(shard))
    shard.write_bytes(shard.read_bytes()[:520])
    with pytest.raises(UnreadableImage, match=r"a\.tar/0000"):
        pairs.read(0)
