"""COCO captions files."""

import json
from pathlib import Path
from typing import Any

import pytest

from sds_clip.models.data.coco import read_coco
from sds_clip.models.data.pairs import Sample
from sds_clip.models.errors import DataError
from tests.pictures import save_pictures


def save_coco(folder: Path, images: list[Any], annotations: list[Any]) -> Path:
    file = folder / "captions.json"
    file.write_text(json.dumps({"info": {}, "images": images, "annotations": annotations}))
    return file


def test_coco_captions_are_gathered_by_image_in_the_order_of_images(tmp_path: Path) -> None:
    save_pictures(tmp_path / "train", ["a.jpg", "b.png"])
    file = save_coco(
        tmp_path,
        [{"id": 7, "file_name": "b.png"}, {"id": 3, "file_name": "a.jpg"}, {"id": 4, "file_name": "c.jpg"}],
        [
            {"id": 1, "image_id": 3, "caption": "first "},
            {"id": 2, "image_id": 7, "caption": "other"},
            {"id": 3, "image_id": 3, "caption": "second"},
        ],
    )
    pairs = read_coco(file, tmp_path / "train")
    assert [pairs.sample(index) for index in range(len(pairs))] == [
        Sample("b.png", ("other",), ((),)),
        Sample("a.jpg", ("first", "second"), ((), ())),
    ]
    assert pairs.image(0).getpixel((0, 0)) == (1, 1, 1)


def test_missing_coco_file_and_folder_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none\.json"):
        read_coco(tmp_path / "none.json")
    with pytest.raises(DataError, match="nowhere"):
        read_coco(tmp_path / "none.json", tmp_path / "nowhere")
