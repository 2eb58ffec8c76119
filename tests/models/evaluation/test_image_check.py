import os
from pathlib import Path

import pytest
from PIL import Image

from sds_clip.models.errors import EvaluationError
from sds_clip.models.evaluation.image_check import Problems, data_hash, look_at_images
from sds_clip.models.evaluation.items import Item
from sds_clip.models.findings import LISTED
from sds_clip.models.images.ref import ImageRef


def save(file: Path, colour: str = "red", format: str | None = None) -> Path:
    Image.new("RGB", (20, 10), colour).save(file, format)
    return file


def item(name: str, file: Path, box: tuple[int, int, int, int] | None = None, caption: str = "a dog") -> Item:
    return Item(id=name, images=(ImageRef(file, box),), captions=(caption, "a cat"))


def look(*items: Item, share: float = 0.0) -> tuple[Problems, dict[ImageRef, bytes]]:
    problems = Problems(len(items), share)
    return problems, look_at_images(items, problems).keys


def hash_of(*items: Item, **settings: object) -> str:
    return data_hash(items, look(*items)[1], settings)


def test_problems_are_counted_and_listed(tmp_path: Path) -> None:
    items = [item(str(number), tmp_path / f"{number}.png") for number in range(LISTED + 5)]
    with pytest.raises(EvaluationError) as raised:
        look(*items)
    text = str(raised.value)
    assert text.startswith(f"{LISTED + 5} of {LISTED + 5} items cannot be used:")
    assert str(tmp_path / "0.png") in text
    assert "and 5 more" in text
    assert "--max-bad-share" not in text  # no share of bad items makes a set out of nothing


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not a JPEG, PNG, WebP or GIF"),
        (b"<html></html>", "web page"),
        (b"\x89PNG\r\n\x1a\n\x00\x00", "ends too early"),
    ],
)
def test_a_file_that_is_no_image_is_named(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(EvaluationError, match=rf"item 0: .*a\.png.*{message}"):
        look(item("0", tmp_path / "a.png"))


def test_a_folder_or_a_pipe_is_no_image(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    problems, _ = look(
        item("0", tmp_path / "pipe.png"), item("1", tmp_path), item("2", save(tmp_path / "a.png")), share=0.7
    )
    assert problems.found.keys() == {"0", "1"}
    assert all("is not a file" in reason for reason in problems.found.values())


def test_as_many_bad_items_as_allowed_pass(tmp_path: Path) -> None:
    good = [item(str(number), save(tmp_path / f"{number}.png")) for number in range(3)]
    missing = item("missing", tmp_path / "none.png")
    problems, keys = look(*good, missing, share=0.25)
    assert [one.id for one in problems.usable([*good, missing])] == ["0", "1", "2"]
    assert len(keys) == 3
    with pytest.raises(EvaluationError, match="1 of 4"):
        look(*good, missing, share=0.24)


@pytest.mark.parametrize(("bad", "total"), [(1, 3), (2, 3), (1, 4), (1, 7), (5, 6)])
def test_the_share_that_the_message_names_is_enough(tmp_path: Path, bad: int, total: int) -> None:
    items = [item(str(number), tmp_path / f"{number}.png") for number in range(total)]
    for one in items[bad:]:
        save(one.images[0].path)
    with pytest.raises(EvaluationError, match="--max-bad-share") as raised:
        look(*items)
    share = float(str(raised.value).rpartition("--max-bad-share ")[2].rstrip("."))
    assert share < 1
    assert len(look(*items, share=share)[0].found) == bad


def test_the_hash_is_of_content_and_not_of_paths(tmp_path: Path) -> None:
    first = hash_of(item("0", save(tmp_path / "a.png")))
    (tmp_path / "elsewhere").mkdir()
    assert hash_of(item("0", save(tmp_path / "elsewhere/b.png"))) == first


@pytest.mark.parametrize("change", ["image", "box", "caption", "id", "setting", "order"])
def test_whatever_changes_a_figure_changes_the_hash(tmp_path: Path, change: str) -> None:
    a, b = save(tmp_path / "a.png"), save(tmp_path / "b.png", "blue")
    first = hash_of(item("0", a), item("1", b))
    changed = {
        "image": lambda: hash_of(item("0", a), item("1", a)),
        "box": lambda: hash_of(item("0", a, (0, 0, 5, 5)), item("1", b)),
        "caption": lambda: hash_of(item("0", a, caption="a fox"), item("1", b)),
        "id": lambda: hash_of(item("7", a), item("1", b)),
        "setting": lambda: hash_of(item("0", a), item("1", b), seed=1),
        "order": lambda: hash_of(item("1", b), item("0", a)),
    }
    assert changed[change]() != first
