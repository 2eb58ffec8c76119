"""The format that a path tells."""

import json
from pathlib import Path

import pytest

from sds_clip.models.data.open import open_pairs
from sds_clip.models.errors import DataError
from tests.pictures import picture, save_pictures
from tests.tars import save_tar


@pytest.fixture
def everything(tmp_path: Path) -> Path:
    """One image and its caption in every format."""
    save_pictures(tmp_path / "folder", ["a.png"])
    (tmp_path / "folder/a.txt").write_text("a dog")
    (tmp_path / "coco.json").write_text(
        json.dumps(
            {
                "images": [{"id": 1, "file_name": "a.png"}],
                "annotations": [{"image_id": 1, "caption": "a dog"}],
            }
        )
    )
    for name, separator in (("comma.csv", ","), ("tab.csv", "\t"), ("tab.tsv", "\t"), ("table.txt", "\t")):
        (tmp_path / name).write_text(f"filepath{separator}title\na.png{separator}a dog\n")
    (tmp_path / "shards").mkdir()
    save_tar(tmp_path / "shards/0.tar", {"a.png": picture(0), "a.txt": b"a dog"})
    return tmp_path


@pytest.mark.parametrize(
    "name",
    ["folder", "coco.json", "comma.csv", "tab.csv", "tab.tsv", "shards", "shards/0.tar", "shards/{0..0}.tar"],
)
def test_format_is_told_by_the_path(everything: Path, name: str) -> None:
    pairs = open_pairs(everything / name, images=everything / "folder")
    assert [pairs.sample(index).captions for index in range(len(pairs))] == [("a dog",)]
    assert pairs.image(0).getpixel((0, 0)) == (0, 0, 0)


def test_stated_format_comes_before_the_name(everything: Path) -> None:
    pairs = open_pairs(str(everything / "table.txt"), images=everything / "folder", format="tsv")
    assert pairs.sample(0).captions == ("a dog",)


def test_path_that_tells_no_format_or_is_not_there_is_refused(everything: Path) -> None:
    with pytest.raises(DataError, match="coco, csv, tsv"):
        open_pairs(everything / "table.txt")
    with pytest.raises(DataError, match="nowhere"):
        open_pairs(everything / "nowhere")


@pytest.mark.parametrize("name", ["comma.csv", "tab.tsv", "coco.json"])
@pytest.mark.parametrize("image", ["{folder}/a.png", "../folder/a.png", "../nowhere.png", "/nowhere.png"])
def test_confined_names_stay_in_the_folder_whatever_lies_elsewhere(
    everything: Path, name: str, image: str
) -> None:
    folder = everything / "folder"
    assert open_pairs(everything / name, images=folder, confined=True).sample(0).name == "a.png"
    content = (everything / name).read_text()
    elsewhere = image.format(folder=folder)
    (everything / name).write_text(content.replace("a.png", elsewhere))
    with pytest.raises(DataError, match=f"{elsewhere}' is not inside|leaves") as caught:
        open_pairs(everything / name, images=folder, confined=True)
    assert "There is no" not in str(caught.value)


def test_table_that_is_not_confined_may_name_any_file(everything: Path) -> None:
    (everything / "tab.tsv").write_text(f"filepath\ttitle\n{everything}/folder/a.png\ta dog\n")
    assert open_pairs(everything / "tab.tsv").image(0).getpixel((0, 0)) == (0, 0, 0)


@pytest.mark.parametrize("name", ["folder", "shards"])
def test_folders_and_shards_are_read_confined_too(everything: Path, name: str) -> None:
    assert len(open_pairs(everything / name, confined=True)) == 1
