"""The check of a Winoground set."""

import json
import os
from functools import partial
from pathlib import Path
from typing import Any

import PIL.Image
import pytest

from sds_clip.app.datasets.check import CheckResult
from sds_clip.app.datasets.folders import Content
from sds_clip.models.findings import LISTED
from sds_clip.worker.benchmarks import check_benchmark
from tests.app.datasets.winoground_sets import item, save_set
from tests.pictures import picture

check_winoground = partial(check_benchmark, "winoground", 0.0)


def checked(folder: Path) -> CheckResult:
    return check_winoground(Content((folder,), is_folder=True))


def test_good_set_is_ready_with_its_counts(tmp_path: Path) -> None:
    folder = save_set(tmp_path / "set", [item(number) for number in range(3)])
    seen: list[tuple[int, int]] = []
    result = check_winoground(Content((folder,), is_folder=True), progress=lambda *state: seen.append(state))
    assert (result.ready, result.counts, result.problems, result.problem_count) == (
        True, {"items": 3, "usable": 3, "images": 6}, (), 0,
    )  # fmt: skip
    assert result.content_hash is not None
    assert len(result.content_hash) == 64
    assert seen[-1] == (6, 6)


def test_hash_is_of_the_content_wherever_it_lies_and_whatever_its_files_are_called(tmp_path: Path) -> None:
    first = checked(save_set(tmp_path / "one", [item(0), item(1)]))
    save_set(tmp_path / "two" / "winoground" / "data", [item(0, image_0="other"), item(1)])
    images = tmp_path / "two" / "winoground" / "data" / "images"
    (images / "ex_0_img_0.png").rename(images / "other.png")
    second = checked(tmp_path / "two")
    assert second.ready
    assert first.content_hash == second.content_hash


@pytest.mark.parametrize(
    "change",
    [
        {"caption_0": "changed"},
        {"collapsed_tag": "Object"},
        {"tag": "x"},
        {"id": 7},
        {"image_0": "ex_0_img_1", "image_1": "ex_0_img_0"},
    ],
)
def test_any_change_changes_the_hash(tmp_path: Path, change: dict[str, Any]) -> None:
    first = checked(save_set(tmp_path / "one", [item(0), item(1)]))
    second = checked(save_set(tmp_path / "two", [item(0, **change), item(1)]))
    assert first.ready
    assert second.ready
    assert first.content_hash != second.content_hash


def test_order_of_items_and_pixels_are_in_the_hash(tmp_path: Path) -> None:
    first = checked(save_set(tmp_path / "one", [item(0), item(1)]))
    swapped = save_set(tmp_path / "two", [item(0), item(1)])
    lines = (swapped / "examples.jsonl").read_text().splitlines(keepends=True)
    (swapped / "examples.jsonl").write_text("".join(reversed(lines)))
    assert checked(swapped).content_hash != first.content_hash
    painted = save_set(tmp_path / "three", [item(0), item(1)])
    (painted / "images" / "ex_1_img_1.png").write_bytes(picture(99))
    assert checked(painted).content_hash != first.content_hash


def test_image_of_several_items_is_decoded_once(tmp_path: Path) -> None:
    folder = save_set(tmp_path / "set", [item(0), item(1, image_0="ex_0_img_0")])
    assert checked(folder).counts == {"items": 2, "usable": 2, "images": 3}


def test_every_bad_image_is_counted_and_the_first_are_listed(tmp_path: Path) -> None:
    folder = save_set(tmp_path / "set", [item(number) for number in range(15)])
    for path in sorted((folder / "images").iterdir())[:25]:
        path.write_bytes(path.read_bytes()[:30])
    result = checked(folder)
    assert (result.ready, result.content_hash, result.problem_count) == (False, None, 25)
    assert len(result.problems) == LISTED
    assert result.problems[0].code == "image_truncated"
    assert result.problems[0].message.startswith("images/ex_0_img_0.png: ")
    assert result.counts == {"items": 15, "usable": 2, "images": 4}


def test_items_that_cannot_be_used_are_left_out_up_to_the_share_that_is_allowed(tmp_path: Path) -> None:
    folder = save_set(tmp_path / "set", [item(number) for number in range(4)])
    (folder / "images" / "ex_1_img_0.png").unlink()
    (folder / "images" / "ex_1_img_1.png").write_bytes(b"no image")
    content = Content((folder,), is_folder=True)
    refused = check_benchmark("winoground", 0.24, content)
    assert (refused.ready, refused.content_hash, refused.problem_count) == (False, None, 2)
    result = check_benchmark("winoground", 0.25, content)
    assert (result.ready, result.problem_count) == (True, 2)
    assert result.counts == {"items": 4, "usable": 3, "images": 6}
    assert result.problems == refused.problems
    assert [(problem.code, problem.message) for problem in result.problems] == [
        ("missing_file", result.problems[0].message),
        ("image_format", result.problems[1].message),
    ]
    lines = (folder / "examples.jsonl").read_text().splitlines(keepends=True)
    (folder / "examples.jsonl").write_text("".join(lines[:1] + lines[2:]))
    assert checked(folder).content_hash == result.content_hash


def test_set_without_one_item_that_can_be_used_is_refused_whatever_is_allowed(tmp_path: Path) -> None:
    folder = save_set(tmp_path / "set", [item(0)])
    (folder / "images" / "ex_0_img_0.png").unlink()
    assert not check_benchmark("winoground", 1.0, Content((folder,), is_folder=True)).ready


@pytest.mark.parametrize("name", ["../../secret", "/etc/passwd", "..", "/", "a\0b", "y" * 10_000])
def test_name_of_an_image_never_leads_out_of_the_images(tmp_path: Path, name: str) -> None:
    folder = save_set(tmp_path / "set", [item(0, image_0=name)])
    (tmp_path / "secret").write_bytes(picture(0))
    result = checked(folder)
    assert (result.ready, result.problem_count) == (False, 1)
    assert result.problems[0].code in ("missing_file", "image_unreadable")
    assert str(tmp_path) not in result.problems[0].message
    assert len(result.problems[0].message) < 1100


def test_image_files_that_are_none_are_problems(tmp_path: Path) -> None:
    folder = save_set(tmp_path / "set", [item(number) for number in range(2)])
    images = folder / "images"
    for name in ("ex_0_img_0", "ex_0_img_1", "ex_1_img_0"):
        (images / f"{name}.png").unlink()
    os.mkfifo(images / "ex_0_img_0.png")
    (images / "ex_0_img_1.png").symlink_to("/dev/zero")
    with (images / "ex_1_img_0.png").open("wb") as huge:
        huge.truncate(2**40)
    result = checked(folder)
    assert [problem.code for problem in result.problems] == ["image_unreadable"] * 3


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("{", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ("[1]", "is not a JSON object"),
        (json.dumps(item(0, caption_0="")), "caption_0"),
        (json.dumps(item(0, id=["x" * 10_000])), "..."),
        ("", "no items"),
    ],
    ids=["cut", "deep", "list", "empty", "long", "none"],
)
def test_bad_line_is_told_without_the_server_s_paths(tmp_path: Path, line: str, words: str) -> None:
    folder = save_set(tmp_path / "set", [item(0)])
    (folder / "examples.jsonl").write_text(line + "\n")
    result = checked(folder)
    assert (result.ready, result.problem_count) == (False, 1)
    (problem,) = result.problems
    assert problem.code == "invalid_benchmark"
    assert words in problem.message
    assert str(tmp_path) not in problem.message
    assert len(problem.message) < 1100


def test_half_of_a_surrogate_pair_is_a_problem(tmp_path: Path) -> None:
    folder = save_set(tmp_path / "set", [item(0), item(1, caption_1="a \ud800")])
    result = checked(folder)
    assert not result.ready
    assert result.problem_count == 1
    assert result.problems[0].message.encode()


def test_folder_without_a_set_and_shards_are_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert "examples.jsonl" in checked(tmp_path / "empty").problems[0].message
    shards = check_winoground(Content((tmp_path / "0.tar",), is_folder=False))
    assert shards.problems[0].code == "archive_format"


@pytest.mark.parametrize("size", [64 * 2**20 + 1, 2**40])
def test_examples_have_64_mib_at_most(tmp_path: Path, size: int) -> None:
    folder = save_set(tmp_path / "set", [item(0)])
    with (folder / "examples.jsonl").open("r+b") as file:
        file.truncate(size)
    (problem,) = checked(folder).problems
    assert problem.code == "invalid_benchmark"
    assert "at most 67108864" in problem.message
    assert "split" in problem.message


def test_transparent_and_palette_images_are_good(tmp_path: Path) -> None:
    folder = save_set(tmp_path / "set", [item(0)])
    PIL.Image.new("RGBA", (8, 8), (1, 2, 3, 4)).save(folder / "images" / "ex_0_img_0.png")
    PIL.Image.new("P", (8, 8)).save(folder / "images" / "ex_0_img_1.png")
    assert checked(folder).ready
