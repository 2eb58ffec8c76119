import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from models.errors import EvaluationError
from models.evaluation.winoground import read_winoground


def example(number: int, **changes: Any) -> dict[str, Any]:
    """A line as the real `examples.jsonl` has it."""
    return {
        "id": number,
        "image_0": f"ex_{number}_img_0",
        "image_1": f"ex_{number}_img_1",
        "caption_0": f"red over blue {number}",
        "caption_1": f"blue over red {number}",
        "tag": "Relation",
        "secondary_tag": "",
        "num_main_preds": 1,
        "collapsed_tag": "Relation",
    } | changes


WriteSet = Callable[..., Path]


@pytest.fixture
def write_set(tmp_path: Path) -> WriteSet:
    """Writes a set whose images are PNG files of random colours, in every mode that the real one has."""

    def write(*examples: dict[str, Any] | str) -> Path:
        (tmp_path / "images").mkdir(exist_ok=True)
        modes = ["RGB", "RGBA", "P", "L"]
        for line in examples:
            for key in ("image_0", "image_1"):
                if isinstance(line, dict) and isinstance(line.get(key), str):
                    name = line[key]
                    colour = tuple(random.Random(name).randbytes(3))
                    image = Image.new("RGB", (40, 30), colour).convert(
                        modes[len(list(tmp_path.rglob("*.png"))) % 4]
                    )
                    image.save(tmp_path / "images" / f"{name}.png")
        lines = [line if isinstance(line, str) else json.dumps(line) for line in examples]
        (tmp_path / "examples.jsonl").write_text("\n".join(lines) + "\n")
        return tmp_path

    return write


def test_a_set_is_read_from_its_folder_or_its_file(write_set: WriteSet) -> None:
    folder = write_set(example(7), example(8, tag="Adjective-Age", collapsed_tag="Object"))
    items = read_winoground(folder)
    assert items == read_winoground(folder / "examples.jsonl")
    assert [item.id for item in items] == ["7", "8"]
    assert items[0].images == (folder / "images/ex_7_img_0.png", folder / "images/ex_7_img_1.png")
    assert items[0].captions == ("red over blue 7", "blue over red 7")
    assert (items[1].tag, items[1].collapsed_tag) == ("Adjective-Age", "Object")


def test_images_of_any_suffix_are_found_by_stem_or_name(write_set: WriteSet) -> None:
    folder = write_set(example(1))
    (folder / "images/ex_1_img_0.png").rename(folder / "images/ex_1_img_0.JPG")
    (folder / "examples.jsonl").write_text(json.dumps(example(1, image_1="ex_1_img_1.png")))
    assert [path.name for path in read_winoground(folder)[0].images] == ["ex_1_img_0.JPG", "ex_1_img_1.png"]


def test_a_line_separator_inside_a_caption_is_part_of_it(write_set: WriteSet) -> None:
    line = json.dumps(example(1, caption_0="red\u2028over blue"), ensure_ascii=False)
    folder = write_set(example(1))
    (folder / "examples.jsonl").write_text(line, encoding="utf-8")
    assert read_winoground(folder)[0].captions[0] == "red\u2028over blue"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{not json", "line 2: is not JSON"),
        ("[1, 2]", "line 2: is not a JSON object"),
        ("[" * 100_000, "line 2: is not JSON"),
        (example(1), "line 2: id '1' is already on line 1"),
        (example(2, caption_1="  "), "line 2: `caption_1` must be a text that is not empty"),
        (example(2, caption_0=None), "line 2: `caption_0` must be a text that is not empty"),
        (example(2, image_0=3), "line 2: `image_0` must be a text"),
        (example(2, id=None), "line 2: `id` must be a number or a text"),
        (example(2, tag=["Relation"]), "line 2: `tag` must be a text or missing"),
    ],
)
def test_a_wrong_line_is_refused_with_its_number(write_set: WriteSet, line: Any, message: str) -> None:
    folder = write_set(example(1), line)
    with pytest.raises(EvaluationError, match=message) as raised:
        read_winoground(folder)
    assert "examples.jsonl" in str(raised.value)


def test_a_missing_image_is_named_with_its_line(write_set: WriteSet) -> None:
    folder = write_set(example(1), example(2))
    (folder / "images/ex_2_img_1.png").unlink()
    with pytest.raises(EvaluationError, match="line 2: `image_1` is 'ex_2_img_1'"):
        read_winoground(folder)


def test_an_image_outside_the_set_is_not_found(write_set: WriteSet) -> None:
    folder = write_set(example(1))
    Image.new("RGB", (4, 4)).save(folder / "secret.png")
    (folder / "examples.jsonl").write_text(json.dumps(example(1, image_0="../secret")))
    with pytest.raises(EvaluationError, match="no such file"):
        read_winoground(folder)


def test_a_stem_with_two_files_is_refused(write_set: WriteSet) -> None:
    folder = write_set(example(1))
    Image.new("RGB", (4, 4)).save(folder / "images/ex_1_img_0.jpg")
    with pytest.raises(EvaluationError, match=r"ex_1_img_0\.jpg and ex_1_img_0\.png; keep one"):
        read_winoground(folder)


@pytest.mark.parametrize("content", [b"", b"\n\n"])
def test_a_set_without_items_is_refused(write_set: WriteSet, content: bytes) -> None:
    folder = write_set(example(1))
    (folder / "examples.jsonl").write_bytes(content)
    with pytest.raises(EvaluationError, match="holds no items"):
        read_winoground(folder)


def test_a_set_that_is_not_utf8_is_refused(write_set: WriteSet) -> None:
    folder = write_set(example(1))
    (folder / "examples.jsonl").write_bytes(b'{"id": "\xff"}')
    with pytest.raises(EvaluationError, match="not UTF-8"):
        read_winoground(folder)


def test_a_folder_without_a_set_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match=r"examples\.jsonl: no such file"):
        read_winoground(tmp_path)


def test_a_set_without_its_images_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "examples.jsonl").write_text(json.dumps(example(1)))
    with pytest.raises(EvaluationError, match="images: no such folder"):
        read_winoground(tmp_path)
