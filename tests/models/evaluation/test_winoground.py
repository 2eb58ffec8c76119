import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from sds_clip.models.errors import EvaluationError
from sds_clip.models.evaluation.image_check import Problems, look_at_images
from sds_clip.models.evaluation.winoground import winoground_benchmark


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
    items = winoground_benchmark(folder).items
    assert items == winoground_benchmark(folder / "examples.jsonl").items
    assert [item.id for item in items] == ["7", "8"]
    images = [region.path for region in items[0].images]
    assert images == [folder / "images/ex_7_img_0.png", folder / "images/ex_7_img_1.png"]
    assert items[0].captions == ("red over blue 7", "blue over red 7")
    assert items[1].tags == ("Object", "tag: Adjective-Age")


def test_images_of_any_suffix_are_found_by_stem_or_name(write_set: WriteSet) -> None:
    folder = write_set(example(1))
    (folder / "images/ex_1_img_0.png").rename(folder / "images/ex_1_img_0.JPG")
    (folder / "examples.jsonl").write_text(json.dumps(example(1, image_1="ex_1_img_1.png")))
    (item,) = winoground_benchmark(folder).items
    assert [region.path.name for region in item.images] == ["ex_1_img_0.JPG", "ex_1_img_1.png"]


def test_a_line_separator_inside_a_caption_is_part_of_it(write_set: WriteSet) -> None:
    line = json.dumps(example(1, caption_0="red\u2028over blue"), ensure_ascii=False)
    folder = write_set(example(1))
    (folder / "examples.jsonl").write_text(line, encoding="utf-8")
    assert winoground_benchmark(folder).items[0].captions[0] == "red\u2028over blue"


def left_out(folder: Path) -> dict[str, str]:
    """The items that the check of the images leaves out, and why."""
    items = winoground_benchmark(folder).items
    problems = Problems(len(items), max_bad_share=0.5)
    look_at_images(items, problems)
    return problems.found


def test_a_missing_image_leaves_its_item_out(write_set: WriteSet) -> None:
    folder = write_set(example(1), example(2))
    (folder / "images/ex_2_img_1.png").unlink()
    (bad,) = left_out(folder).items()
    assert bad[0] == "2"
    assert str(folder / "images/ex_2_img_1") in bad[1]


def test_an_image_outside_the_set_is_not_found(write_set: WriteSet) -> None:
    folder = write_set(example(1), example(2))
    Image.new("RGB", (4, 4)).save(folder / "secret.png")
    lines = [example(1, image_0="../secret"), example(2)]
    (folder / "examples.jsonl").write_text("\n".join(map(json.dumps, lines)))
    assert left_out(folder).keys() == {"1"}


def test_a_stem_with_two_files_is_refused(write_set: WriteSet) -> None:
    folder = write_set(example(1))
    Image.new("RGB", (4, 4)).save(folder / "images/ex_1_img_0.jpg")
    with pytest.raises(EvaluationError, match=r"ex_1_img_0\.jpg and ex_1_img_0\.png"):
        winoground_benchmark(folder)


@pytest.mark.parametrize("content", [b"", b"\n\n"])
def test_a_set_without_items_is_refused(write_set: WriteSet, content: bytes) -> None:
    folder = write_set(example(1))
    (folder / "examples.jsonl").write_bytes(content)
    with pytest.raises(EvaluationError, match="no items"):
        winoground_benchmark(folder)


def test_a_set_that_is_not_utf8_is_refused(write_set: WriteSet) -> None:
    folder = write_set(example(1))
    (folder / "examples.jsonl").write_bytes(b'{"id": "\xff"}')
    with pytest.raises(EvaluationError, match="not UTF-8"):
        winoground_benchmark(folder)


def test_a_set_without_its_images_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "examples.jsonl").write_text(json.dumps(example(1)))
    with pytest.raises(EvaluationError, match="images"):
        winoground_benchmark(tmp_path)
