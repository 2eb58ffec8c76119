"""COCO captions files."""

import json
from pathlib import Path
from typing import Any

import pytest

from models.data.coco import read_coco
from models.data.pairs import Sample
from models.errors import DataError
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


@pytest.mark.parametrize(
    ("images", "annotations", "message"),
    [
        ([{"id": 1, "file_name": "a"}], [{"image_id": 2, "caption": "x"}], r"annotations\[0\].*image_id 2"),
        ([{"id": 1, "file_name": "a"}] * 2, [], r"images\[1\].*twice"),
        ([{"id": 1}], [], r"images\[0\].*`file_name`"),
        ([{"id": 1, "file_name": "a"}], [{"image_id": 1, "caption": None}], r"annotations\[0\].*`caption`"),
        ([{"id": 1, "file_name": "a"}], [], "no captions"),
        ("none", [], "list `images`"),
        (["a"], [], r"images\[0\]"),
    ],
)
def test_coco_error_names_the_record(tmp_path: Path, images: Any, annotations: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_coco(save_coco(tmp_path, images, annotations))


@pytest.mark.parametrize("content", [b"{", b"[1]", b"\xff\xfe", b"[" * 100_000])
def test_file_that_is_not_coco_is_refused(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "captions.json"
    file.write_bytes(content)
    with pytest.raises(DataError, match=r"captions\.json"):
        read_coco(file)


def test_missing_coco_file_and_folder_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none\.json"):
        read_coco(tmp_path / "none.json")
    with pytest.raises(DataError, match="nowhere"):
        read_coco(tmp_path / "none.json", tmp_path / "nowhere")
