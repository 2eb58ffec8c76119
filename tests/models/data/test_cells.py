"""Parquet files, and folders that Hugging Face's `datasets` saved. The latter were written by the real library."""

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import PIL.Image
import pytest
import torch

from sds_clip.models.data.batches import Batch, Loader
from sds_clip.models.data.check import check_pairs
from sds_clip.models.data.metadata import read_metadata
from sds_clip.models.data.open import open_pairs
from sds_clip.models.data.pairs import Sample, UnreadableImage
from sds_clip.models.errors import DataError
from sds_clip.models.images.files import MAX_IMAGE_BYTES
from tests.pictures import picture, save_pictures

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

SETS = Path(__file__).parents[1] / "saved_sets"
DOG = ["a dog"]


def level(image: PIL.Image.Image) -> int:
    found = image.getpixel((0, 0))
    assert isinstance(found, tuple)
    return int(found[0])


def write(file: Path, **columns: Any) -> Path:
    pq.write_table(pa.table(columns), file)
    return file


def write_arrow(folder: Path, table: Any, **options: Any) -> Path:
    """A folder as `save_to_disk` lays it out."""
    folder.mkdir(exist_ok=True)
    with pa.ipc.new_stream(folder / "a.arrow", table.schema, **options) as writer:
        writer.write_table(table)
    (folder / "state.json").write_text(json.dumps({"_data_files": [{"filename": "a.arrow"}]}))
    return folder


@pytest.mark.parametrize("name", ["shards", "parquet", "parquet/train-00000-of-00001.parquet"])
def test_rows_are_read_in_any_order_with_all_of_their_captions(name: str) -> None:
    pairs = open_pairs(SETS / name)
    assert [level(pairs.image(index)) for index in (3, 0, 4, 1, 2)] == [3, 0, 4, 1, 2]
    for index in range(5):
        assert pairs.sample(index).captions == (f"grey {index}", f"a grey {index}")
        assert pairs.sample(index).negatives == ((), ())
    assert check_pairs(pairs).report.usable == 5


def test_folders_that_the_library_saved_are_read_as_it_left_them() -> None:
    selected = open_pairs(SETS / "selected")
    assert [(level(selected.image(k)), selected.sample(k).captions[0]) for k in (0, 1)] == [
        (1, "grey 1"),
        (0, "grey 0"),
    ]
    loaded, photos = open_pairs(SETS / "loaded"), open_pairs(SETS / "photos")
    for index in range(2):
        assert loaded.sample(index).captions == photos.sample(index).captions == (f"grey {index}",)
        assert level(loaded.image(index)) == level(photos.image(index)) == index


def test_the_only_split_is_read_and_of_several_one_must_be_named(tmp_path: Path) -> None:
    assert [level(open_pairs(SETS / "one_split").image(index)) for index in range(2)] == [5, 6]
    assert [level(open_pairs(SETS / "splits/train").image(index)) for index in range(2)] == [0, 1]
    with pytest.raises(DataError, match="splits train, test; give the folder of one"):
        open_pairs(SETS / "splits")
    for split in ("train", "test"):
        write(tmp_path / f"{split}-00000-of-00001.parquet", image=[picture(0)], caption=DOG)
        shutil.copytree(SETS / "photos", tmp_path / "photos" / split)
    with pytest.raises(DataError, match="splits test, train"):
        open_pairs(tmp_path)
    assert len(open_pairs(f"{tmp_path}/train-{{00000..00000}}-of-00001.parquet")) == 1
    with pytest.raises(DataError, match="splits test, train"):
        open_pairs(tmp_path / "photos")


@pytest.mark.parametrize("name", ["shards", "parquet", "photos"])
def test_training_continues_with_the_batches_of_an_uninterrupted_run(name: str) -> None:
    def batches(first_step: int) -> list[Batch]:
        loader = Loader(
            open_pairs(SETS / name),
            lambda image: torch.full((3, 1, 1), float(level(image))),
            batch_size=2,
            seed=7,
            first_step=first_step,
            last_step=9,
            workers=3,
            cache_bytes=0,
        )
        return list(loader)

    whole, rest = batches(0), batches(5)
    assert [batch.step for batch in rest] == [5, 6, 7, 8]
    for one, other in zip(whole[5:], rest, strict=True):
        assert torch.equal(one.pixels, other.pixels)
        assert one.captions == other.captions
        assert one.pixels[:, 0, 0, 0].tolist() == one.indices.tolist()


def test_embeddings_beside_the_images_are_no_table(tmp_path: Path) -> None:
    save_pictures(tmp_path, ["a.png"])
    (tmp_path / "a.txt").write_text("a dog")
    table = pa.table({"path": ["a.png"], "embedding": [[1.0]]}).replace_schema_metadata({"sds_clip": "{}"})
    pq.write_table(table, tmp_path / "vectors.parquet")
    assert open_pairs(tmp_path).sample(0) == Sample("a.png", ("a dog",), ((),))


def test_columns_have_usual_names_or_given_ones(tmp_path: Path) -> None:
    file = write(tmp_path / "a.parquet", image=[picture(1)], picture=[picture(2)], text=DOG, alt=["a cat"])
    assert (level(open_pairs(file).image(0)), open_pairs(file).sample(0).captions) == (1, ("a dog",))
    named = open_pairs(file, image_key="picture", caption_key="alt")
    assert (level(named.image(0)), named.sample(0).captions) == (2, ("a cat",))
    with pytest.raises(DataError, match="no column `nope`; its columns are image, picture, text, alt"):
        open_pairs(file, caption_key="nope")


def test_rows_of_one_path_are_one_sample_with_hard_negatives(tmp_path: Path) -> None:
    save_pictures(tmp_path / "photos", ["a.png", "b.png"])
    file = write(
        tmp_path / "a.parquet",
        file_name=["b.png", "a.png", "b.png"],
        caption=["a dog", " a cat ", "a wolf"],
        neg_caption=[["a god"], None, ["a flow", "a fowl"]],
    )
    pairs = open_pairs(file, images=tmp_path / "photos", confined=True)
    assert pairs.sample(0) == Sample("b.png", ("a dog", "a wolf"), (("a god",), ("a flow", "a fowl")))
    assert pairs.sample(1) == Sample("a.png", ("a cat",), ((),))
    assert level(pairs.image(0)) == 1


def test_lines_of_one_image_are_one_sample(tmp_path: Path) -> None:
    save_pictures(tmp_path, ["a.png", "sub/b.png"])
    lines: list[dict[str, Any]] = [
        {"file_name": "sub/b.png", "text": "a dog", "neg_caption": "['a god']"},
        {"file_name": "a.png", "caption": ["a cat", "a tom"]},
        {"file_name": "sub/b.png", "text": "a wolf", "other": 1},
    ]
    (tmp_path / "metadata.jsonl").write_text("\n".join(map(json.dumps, lines)))
    pairs = read_metadata(tmp_path)
    assert pairs.sample(0) == Sample("sub/b.png", ("a dog", "a wolf"), (("a god",), ()))
    assert pairs.sample(1) == Sample("a.png", ("a cat", "a tom"), ((), ()))
    assert level(open_pairs(tmp_path / "metadata.jsonl").image(0)) == 1


def test_check_lists_rows_without_an_image_or_a_caption(tmp_path: Path) -> None:
    file = write(
        tmp_path / "a.parquet",
        image=[picture(0), b"no picture", None, picture(3), picture(4)],
        caption=["a", "b", "c", None, " "],
    )
    report = check_pairs(open_pairs(file), max_bad_share=1.0).report
    assert (
        report.usable,
        report.findings["image_unreadable"].count,
        report.findings["bad_caption"].count,
    ) == (1, 2, 2)
    assert "a.parquet/00000002: the image has no bytes" in str(report)
    saved = write_arrow(tmp_path / "saved", pq.read_table(file))
    again = check_pairs(open_pairs(saved), max_bad_share=1.0).report
    assert (again.usable, again.findings["image_unreadable"].count, again.findings["bad_caption"].count) == (
        1,
        2,
        2,
    )


def test_path_in_the_place_of_an_image_is_not_followed(tmp_path: Path) -> None:
    """The library's `to_parquet` leaves images out that it has not opened."""
    save_pictures(tmp_path, ["a.png"])
    file = write(
        tmp_path / "a.parquet",
        image=[{"bytes": picture(0), "path": None}, {"bytes": None, "path": "a.png"}],
        text=DOG * 2,
    )
    with pytest.raises(UnreadableImage, match=r"only the path 'a\.png'.* save_to_disk"):
        open_pairs(file).read(1)


def test_path_beside_an_image_may_be_any_bytes(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    paths = pa.array([b"caf\xe9.png", b"caf\xe9.png"], pa.binary()).view(pa.string())
    cells = pa.StructArray.from_arrays([pa.array([picture(0), None], pa.binary()), paths], ["bytes", "path"])
    pq.write_table(pa.table({"image": cells, "text": DOG * 2}), tmp_path / "a.parquet")
    pairs = open_pairs(tmp_path / "a.parquet")
    assert pairs.read(0)
    with pytest.raises(UnreadableImage, match="cannot be read"):
        pairs.read(1)


def test_image_that_is_too_large_is_not_read(tmp_path: Path) -> None:
    table = pa.table({"image": [picture(0), bytes(MAX_IMAGE_BYTES + 1)], "caption": ["a", "b"]})
    pq.write_table(table, tmp_path / "a.parquet")
    for place in (tmp_path / "a.parquet", write_arrow(tmp_path / "saved", table)):
        with pytest.raises(UnreadableImage, match=f"at most {MAX_IMAGE_BYTES}"):
            open_pairs(place).read(1)


def _duplicated(folder: Path) -> Path:
    table = pa.Table.from_arrays(
        [pa.array([picture(0)]), pa.array(DOG), pa.array(DOG)], ["image", "text", "text"]
    )
    return write_arrow(folder / "d", table)


def _cut(folder: Path) -> Path:
    shutil.copytree(SETS / "shards", folder / "cut")
    file = folder / "cut/data-00001-of-00002.arrow"
    file.write_bytes(file.read_bytes()[:-400])
    return folder / "cut"


def _missing(folder: Path) -> Path:
    shutil.copytree(SETS / "shards", folder / "missing")
    (folder / "missing/data-00001-of-00002.arrow").unlink()
    return folder / "missing"


def _empty(folder: Path) -> Path:
    saved = write_arrow(folder / "e", pa.table({"image": [picture(0)], "text": DOG}))
    (saved / "a.arrow").write_bytes(b"")
    return saved


def _no_parquet(folder: Path) -> Path:
    (folder / "a.parquet").write_bytes(b"PAR1")
    return folder / "a.parquet"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (_no_parquet, "is not a whole Parquet or Arrow file"),
        (_cut, "is not a whole Parquet or Arrow file"),
        (_missing, "There is no file .*data-00001"),
        (_empty, "a.arrow is empty"),
        (_duplicated, "two columns of one name"),
        (
            lambda folder: write(folder / "a.parquet", image=[picture(0)], text=[1.5]),
            "`text` has the type double",
        ),
        (lambda folder: write(folder / "a.parquet", image=[[1]], text=DOG), "holds no image and no path"),
        (lambda folder: write(folder / "a.parquet", image=[""], text=DOG), "holds no image and no path"),
        (
            lambda folder: write(folder / "a.parquet", image=[{"path": "a"}], text=DOG),
            "`image` has the type struct",
        ),
        (lambda folder: write(folder / "a.parquet", text=DOG), "no column `image` or `filepath`"),
        (lambda folder: write(folder / "a.parquet", image=[picture(0)]), "no column `text` or `caption`"),
        (
            lambda folder: write(folder / "a.parquet", image=["../a.png"], text=DOG),
            "is not inside the folder",
        ),
        (
            lambda folder: write(
                folder / "a.parquet", image=pa.array([], pa.binary()), text=pa.array([], pa.string())
            ),
            "has no rows",
        ),
    ],
)
def test_table_that_cannot_be_used_is_refused(
    tmp_path: Path, make: Callable[[Path], Path], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        open_pairs(make(tmp_path), confined=True)


@pytest.mark.parametrize("name", ["../a.arrow", "/a.arrow", "b/a.arrow", "..", "", 7, None, "a\0"])
def test_saved_folder_names_only_files_in_it(tmp_path: Path, name: Any) -> None:
    write_arrow(tmp_path, pa.table({"image": [picture(0)], "text": DOG}))
    write_arrow(tmp_path / "set", pa.table({"image": [picture(0)], "text": DOG}))
    (tmp_path / "set/state.json").write_text(json.dumps({"_data_files": [{"filename": name}]}))
    with pytest.raises(DataError, match="is not a name in this folder"):
        open_pairs(tmp_path / "set")
    (tmp_path / "set/state.json").unlink()
    (tmp_path / "set/dataset_dict.json").write_text(json.dumps({"splits": [name]}))
    with pytest.raises(DataError, match="is not a name in this folder"):
        open_pairs(tmp_path / "set")


@pytest.mark.parametrize(
    "state",
    [
        "{",
        "[]",
        "{}",
        '{"_data_files": []}',
        '{"_data_files": [{"filename": "a"}], "_indices_data_files": [{}]}',
    ],
)
def test_saved_folder_with_a_broken_state_is_refused(tmp_path: Path, state: str) -> None:
    (tmp_path / "state.json").write_text(state)
    with pytest.raises(DataError, match=r"state\.json"):
        open_pairs(tmp_path)


def test_compressed_arrow_files_are_refused(tmp_path: Path) -> None:
    table = pa.table({"image": [bytes(10_000)], "text": DOG})
    saved = write_arrow(tmp_path, table, options=pa.ipc.IpcWriteOptions(compression="zstd"))
    with pytest.raises(UnreadableImage, match=r"table that cannot be read: .*a\.arrow is compressed"):
        open_pairs(saved).read(0)


def test_a_small_file_that_grows_is_refused_before_it_is_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sds_clip.models.images.table_cells.MAX_GROUP_BYTES", 2**20)
    monkeypatch.setattr("sds_clip.models.images.tables.MAX_ROWS", 1000)
    monkeypatch.setattr("sds_clip.models.images.tables.MAX_TEXT_BYTES", 2**20)
    # A dictionary holds a value once, however many rows repeat it. So the group states a small size.
    repeated = write(tmp_path / "a.parquet", image=[bytes(2**16)] * 100, text=DOG * 100)
    assert repeated.stat().st_size < 10_000
    with pytest.raises(UnreadableImage, match="row group of more than 1048576 bytes"):
        open_pairs(repeated).read(0)
    honest = pa.table({"image": [bytes([number]) * 2**16 for number in range(100)], "text": DOG * 100})
    pq.write_table(honest, tmp_path / "b.parquet")
    with pytest.raises(DataError, match=r"row group of more than 1048576 bytes.*row_group_size=100"):
        open_pairs(tmp_path / "b.parquet")
    pq.write_table(honest, tmp_path / "b.parquet", row_group_size=10)
    assert len(open_pairs(tmp_path / "b.parquet").read(99)) == 2**16
    for name, texts in (("c", DOG * 1001), ("d", ["x" * 2**14] * 100)):
        file = write(tmp_path / f"{name}.parquet", image=[None] * (len(texts) - 1) + [b"x"], text=texts)
        with pytest.raises(DataError, match="more than 1000 rows, or more than 1048576 bytes"):
            open_pairs(file)


def test_without_pyarrow_the_message_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(DataError, match=r"pip install 'sds-clip\[tables\]'"):
        open_pairs(SETS / "shards")
