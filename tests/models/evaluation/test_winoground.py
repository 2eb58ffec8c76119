import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from models.clip import Clip
from models.evaluation.errors import EvaluationError
from models.evaluation.winoground import (
    CHANCE,
    UNTAGGED,
    evaluate_winoground,
    group_match_margins,
    metrics_by,
    pair_scores,
    read_winoground,
    winoground_metrics,
)

# scores[caption][image] of one item, by hand: a row is a caption, a column an image.
ALL_RIGHT = [[0.9, 0.1], [0.2, 0.8]]
TEXT_ONLY = [[0.3, 0.6], [0.2, 0.7]]  # c0 wins image 0, c1 wins image 1; but image 1 wins caption 0
IMAGE_ONLY = [[0.3, 0.2], [0.6, 0.7]]  # image 0 wins caption 0, image 1 caption 1; but c1 wins image 0
ALL_WRONG = [[0.1, 0.9], [0.8, 0.2]]
TEXT_TIE = [[0.5, 0.4], [0.5, 0.8]]  # both captions equal on image 0
IMAGE_TIE = [[0.5, 0.5], [0.2, 0.8]]  # both images equal for caption 0
SAME = [[0.5, 0.5], [0.5, 0.5]]
LEVELS_HIDE_IT = [[0.9, 0.7], [0.3, 0.2]]  # 0.9 + 0.2 > 0.7 + 0.3, but c0 wins image 1, and i0 caption 1
BLIND_TO_CAPTIONS = [[0.1, 0.7], [0.1, 0.7]]
BLIND_TO_IMAGES = [[0.1, 0.1], [0.7, 0.7]]


@pytest.mark.parametrize(
    ("item", "text", "image", "group", "match"),
    [
        (ALL_RIGHT, 1, 1, 1, 1),
        (TEXT_ONLY, 1, 0, 0, 1),
        (IMAGE_ONLY, 0, 1, 0, 1),
        (ALL_WRONG, 0, 0, 0, 0),
        (TEXT_TIE, 0, 1, 0, 1),
        (IMAGE_TIE, 1, 0, 0, 1),
        (SAME, 0, 0, 0, 0),
        (LEVELS_HIDE_IT, 0, 0, 0, 1),
        (BLIND_TO_CAPTIONS, 0, 0, 0, 0),
        (BLIND_TO_IMAGES, 0, 0, 0, 0),
    ],
)
def test_one_item_scores_as_worked_out_by_hand(
    item: list[list[float]], text: int, image: int, group: int, match: int
) -> None:
    metrics = winoground_metrics(torch.tensor([item]))
    assert (metrics.text_score, metrics.image_score, metrics.group_score) == (text, image, group)
    assert metrics.group_match == match


def test_shares_and_ties_are_over_all_items() -> None:
    metrics = winoground_metrics(torch.tensor([ALL_RIGHT, TEXT_ONLY, TEXT_TIE, IMAGE_TIE, SAME]))
    assert metrics.items == 5
    assert metrics.text_score == pytest.approx(3 / 5)
    assert metrics.image_score == pytest.approx(2 / 5)
    assert metrics.group_score == pytest.approx(1 / 5)
    assert (metrics.text_ties, metrics.image_ties, metrics.group_ties) == (2, 2, 3)
    assert (metrics.group_match, metrics.group_match_ties) == (pytest.approx(4 / 5), 1)


def test_d_prime_is_the_mean_margin_over_its_standard_deviation() -> None:
    # Margins 1.4, 0.2 and -1.4: their mean is 0.2 / 3, the sum of their squared deviations 3.96 - 0.04 / 3.
    metrics = winoground_metrics(torch.tensor([ALL_RIGHT, TEXT_ONLY, ALL_WRONG], dtype=torch.float64))
    assert metrics.d_prime == pytest.approx(0.2 / 3 / ((3.96 - 0.04 / 3) / 2) ** 0.5)
    assert winoground_metrics(torch.tensor([ALL_RIGHT, ALL_RIGHT])).d_prime is None
    assert winoground_metrics(torch.tensor([ALL_RIGHT])).d_prime is None


def test_a_level_of_a_caption_or_an_image_changes_no_group_match() -> None:
    generator = torch.Generator().manual_seed(2)
    scores = torch.rand(300, 2, 2, generator=generator, dtype=torch.float64)
    of_captions = 5 * torch.rand(300, 2, 1, generator=generator, dtype=torch.float64)
    of_images = 5 * torch.rand(300, 1, 2, generator=generator, dtype=torch.float64)
    shifted = scores + of_captions + of_images
    assert torch.allclose(group_match_margins(scores), group_match_margins(shifted), rtol=0, atol=1e-13)
    plain, moved = winoground_metrics(scores), winoground_metrics(shifted)
    assert (plain.group_match, plain.d_prime) == (moved.group_match, pytest.approx(moved.d_prime))
    assert abs(plain.group_score - moved.group_score) > 0.1


def test_metrics_equal_the_loops_of_the_definition() -> None:
    generator = random.Random(5)
    # Few distinct values, so that every kind of tie occurs; quarters, so that their sums are exact.
    scores = [[[generator.randint(0, 3) / 4 for _ in range(2)] for _ in range(2)] for _ in range(500)]
    text = image = group = ties = match = 0
    for (c0i0, c0i1), (c1i0, c1i1) in scores:
        text_right = c0i0 > c1i0 and c1i1 > c0i1
        image_right = c0i0 > c0i1 and c1i1 > c1i0
        text += text_right
        match += c0i0 + c1i1 > c0i1 + c1i0
        image += image_right
        group += text_right and image_right
        ties += (
            len(
                {(c0i0, c1i0), (c1i1, c0i1), (c0i0, c0i1), (c1i1, c1i0)}
                & {(v, v) for v in (0, 1 / 4, 2 / 4, 3 / 4)}
            )
            > 0
        )
    metrics = winoground_metrics(torch.tensor(scores, dtype=torch.float64))
    assert metrics.text_score * 500 == pytest.approx(text)
    assert metrics.image_score * 500 == pytest.approx(image)
    assert metrics.group_score * 500 == pytest.approx(group)
    assert metrics.group_ties == ties
    assert metrics.group_match * 500 == pytest.approx(match)


def test_random_scores_are_at_chance() -> None:
    scores = torch.rand(100_000, 2, 2, generator=torch.Generator().manual_seed(0))
    metrics = winoground_metrics(scores)
    assert metrics.text_score == pytest.approx(1 / 4, abs=0.006)
    assert metrics.image_score == pytest.approx(1 / 4, abs=0.006)
    assert metrics.group_score == pytest.approx(1 / 6, abs=0.006)
    assert metrics.group_match == pytest.approx(1 / 2, abs=0.006)
    assert CHANCE == {"text": 1 / 4, "image": 1 / 4, "group": 1 / 6, "group_match": 1 / 2}


def test_scores_hold_the_caption_before_the_image() -> None:
    images = torch.tensor([[[1.0, 0.0], [0.0, 1.0]]])
    texts = torch.tensor([[[0.6, 0.8], [0.0, 1.0]]])
    # c0 is nearer to image 1 than to image 0.
    assert pair_scores(images, texts)[0].tolist() == pytest.approx(torch.tensor([[0.6, 0.8], [0.0, 1.0]]))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_scores_that_are_not_finite_are_refused(value: float) -> None:
    with pytest.raises(EvaluationError, match="not finite"):
        winoground_metrics(torch.tensor([[[value, 0.1], [0.2, 0.3]]]))


def test_no_items_are_refused() -> None:
    with pytest.raises(EvaluationError, match="no items"):
        winoground_metrics(torch.empty(0, 2, 2))


def test_each_tag_is_scored_over_its_own_items() -> None:
    metrics = metrics_by(torch.tensor([ALL_RIGHT, ALL_WRONG, TEXT_ONLY]), ["Relation", "", "Relation"])
    assert list(metrics) == ["Relation", UNTAGGED]
    assert metrics["Relation"].items == 2
    assert metrics["Relation"].text_score == 1
    assert metrics["Relation"].group_score == 0.5
    assert metrics[UNTAGGED].text_score == 0


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


def test_a_model_is_scored_item_by_item(tiny_clip: Clip, write_set: WriteSet) -> None:
    items = read_winoground(
        write_set(example(1), example(2, tag="Object", collapsed_tag="Object"), example(3))
    )
    report = evaluate_winoground(tiny_clip, items, batch_size=4)
    for item, scores in zip(items, report.scores, strict=True):
        for caption in (0, 1):
            text = tiny_clip.encode_text(tiny_clip.tokenizer([item.captions[caption]]))[0]
            for image in (0, 1):
                pixels = tiny_clip.preprocess(Image.open(item.images[image]).convert("RGB"))
                expected = float(tiny_clip.encode_image(pixels[None])[0] @ text)
                assert float(scores[caption, image]) == pytest.approx(expected, abs=1e-5)
    assert report.overall == winoground_metrics(report.scores)
    assert report.by_tag == {
        "Object": winoground_metrics(report.scores[[1]]),
        "Relation": winoground_metrics(report.scores[[0, 2]]),
    }
    assert report.by_collapsed_tag.keys() == {"Object", "Relation"}


def test_equal_images_and_equal_captions_are_ties(tiny_clip: Clip, write_set: WriteSet) -> None:
    folder = write_set(example(1), example(2, caption_1="red over blue 2"))
    copy = Image.open(folder / "images/ex_1_img_0.png").convert("RGB")
    copy.save(folder / "images/ex_1_img_1.png")
    metrics = evaluate_winoground(tiny_clip, read_winoground(folder), batch_size=1).overall
    assert (metrics.text_ties, metrics.image_ties, metrics.group_ties) == (1, 1, 2)
    assert metrics.group_score == 0
