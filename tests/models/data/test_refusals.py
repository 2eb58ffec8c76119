"""Files that no pairs can be read from: what is wrong with each, and the words that say so."""

import json
from pathlib import Path
from typing import Any

import pytest

from sds_clip.models.data.open import open_pairs
from sds_clip.models.errors import DataError
from tests.tars import tar_of


def coco(images: Any, annotations: Any) -> str:
    return json.dumps({"info": {}, "images": images, "annotations": annotations})


IMAGE = {"id": 1, "file_name": "a"}

REFUSED: dict[str, list[tuple[str | bytes, str]]] = {
    "captions.json": [
        (coco([IMAGE], [{"image_id": 2, "caption": "x"}]), r"annotations\[0\].*image_id 2"),
        (coco([IMAGE] * 2, []), r"images\[1\].*twice"),
        (coco([{"id": 1}], []), r"images\[0\].*`file_name`"),
        (coco([IMAGE], [{"image_id": 1, "caption": None}]), r"annotations\[0\].*`caption`"),
        (coco([IMAGE], []), "no captions"),
        (coco("none", []), "list `images`"),
        (coco(["a"], []), r"images\[0\]"),
        ("{", "is not JSON"),
        ("[1]", "must be a JSON object"),
        (b"\xff\xfe", "not UTF-8"),
        ("[" * 100_000, "is not JSON"),
    ],
    "train.tsv": [
        ("filepath\tcaption\n", "no column 'title'.* filepath, caption"),
        ("", "no column"),
        ("filepath\ttitle\n", "no rows"),
        ("filepath\ttitle\na.jpg\n", "line 2: .*fewer cells"),
        ("filepath\ttitle\na.jpg\tx\ty\n", "line 2: .*more cells"),
        ("filepath\ttitle\n\tx\n", "line 2: .*no image"),
        ('filepath\ttitle\na.jpg\t"x\n', "quotes"),
        ("filepath\ttitle\tneg_caption\na.jpg\tx\t__import__('os')\n", "line 2: `neg_caption`"),
        ("filepath\ttitle\tneg_caption\na.jpg\tx\t[1]\n", "line 2: `neg_caption`"),
    ],
    "metadata.csv": [
        ("name,text\na.png,a cat\n", r"line 1: there is no column .*'file_name'.* are name, text"),
        ("file_name,words\na.png,a cat\n", r"line 1: there is no column 'text' or .*are file_name, words"),
        ("", "line 1: there is no column"),
        ("file_name,text\n", "has no lines"),
        ("file_name,text\na.png,a cat\n,a dog\n", "line 3: the line names no image"),
        ("file_name,text\na.png,a cat, grey\n", "line 2: the row has more cells"),
        ("file_name,text\na.png\n", "line 2: the row has fewer cells"),
        ("file_name,text\na.png,a cat\nb.png,a dog\na.png,a cat\n", "line 4: the row repeats line 2; remove"),
        (b"file_name,text\na.png,a cat\nb.png,caf\xe9\n", "line 3: the file is not UTF-8"),
        ('file_name,text\na.png,a cat\nb.png,"a dog\n', "row after line 2 cannot be read"),
        ("file_name,text\n../a.png,a cat\n", "is not inside the folder"),
    ],
    "metadata.jsonl": [
        ("{", "line 1: the line is not JSON"),
        ("[]", "line 1: the line is not a JSON object"),
        ("9" * 5000, "line 1: the line is not JSON"),
        ('{"text": "a"}', "line 1: the line names no image"),
        ('{"file_name": 7, "text": "a"}', "names no image"),
        ('{"file_name": "a.png", "text": 7}', "captions must be a text or a list of texts"),
        ('{"file_name": "a.png", "text": ["a", null]}', "captions must be a text or a list of texts"),
        ('{"file_name": "a.png", "text": ["a", "b"], "neg_caption": ["c"]}', "belong to one caption"),
        ("", "has no lines"),
        ('{"file_name": "../a.png", "text": "a"}', "is not inside the folder"),
        ('{"file_name": "/a.png", "text": "a"}', "is not inside the folder"),
    ],
    "a.tar": [
        (tar_of({"a.png": b"1", "a.jpg": b"2"}), "two images"),
        (tar_of({"a.png": b"1", "a.txt": b"\xff"}), "not UTF-8"),
        (tar_of({"a.png": b"1", "a.json": b"[]"}), "not a JSON object"),
        (tar_of({"a.png": b"1", "a.json": b'{"caption": 3}'}), "must be a text"),
        (tar_of({"a.png": b"1", "a.txt": b"x" * (2**20 + 1)}), "at most"),
        (tar_of({"readme.md": b""}), "no samples"),
    ],
}


@pytest.mark.parametrize(
    ("name", "number"), [(name, number) for name, rows in REFUSED.items() for number in range(len(rows))]
)
def test_wrong_file_is_refused_by_name(name: str, number: int, tmp_path: Path) -> None:
    content, words = REFUSED[name][number]
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(DataError, match=words) as raised:
        open_pairs(tmp_path / name, confined=True)
    assert name in str(raised.value)
