"""Files that no benchmark can be read from: what is wrong with each, and the words that say so."""

import json
from pathlib import Path
from typing import Any

import pytest

from sds_clip.models.errors import DataError, EvaluationError
from sds_clip.models.evaluation.readers import read_benchmark
from tests.benchmark_sets import (
    COCO_SPATIAL,
    MMVP_ROWS,
    WHATS_UP_A,
    case,
    colorswap_entry,
    controlled_entries,
    entry,
    half_truth,
    save_mmvp,
)


def example(**changes: Any) -> dict[str, Any]:
    return {"id": 2, "image_0": "a", "image_1": "b", "caption_0": "c", "caption_1": "d"} | changes


def photograph(**changes: Any) -> dict[str, Any]:
    return controlled_entries(WHATS_UP_A, "mug", "table")[0] | changes


def row(*cells: str) -> list[tuple[str, ...]]:
    """A sound row, and this one."""
    return [MMVP_ROWS[0], cells]


FILES = {
    "winoground": "examples.jsonl",
    "colorswap": "test.json",
    "mmvp-vlm": "Questions.csv",
    "vg-relation": "visual_genome_relation.json",
    "vg-attribution": "visual_genome_attribution.json",
    "coco-order": "coco_karpathy_test.json",
    "sugarcrepe": "swap_att.json",
    "sugarcrepe-pp": "swap_object.json",
    "whats-up": "controlled_images_dataset.json",
    "coco-spatial": "coco_qa_two_obj.json",
    "half-truths": "coco_qwen.jsonl",
    "retrieval": "captions.json",
}
SOUND_LINES = {"examples.jsonl": example(id=1), "coco_qwen.jsonl": half_truth(0)}
LIST_OF_TRIPLES = r"must be a list of \[image id, true caption, false caption\]"

REFUSED: dict[str, list[tuple[Any, str]]] = {
    "winoground": [
        ("{not json", "line 2: .*is not JSON"),
        ("[1, 2]", "line 2: .*is not a JSON object"),
        ("[" * 100_000, "line 2: .*is not JSON"),
        (example(id=1), "line 2: .*id '1' .*line 1"),
        (example(caption_1="  "), "line 2: `caption_1` must be a text that is not empty"),
        (example(caption_0=None), "line 2: `caption_0` must be a text that is not empty"),
        (example(image_0=3), "line 2: `image_0` must be a text"),
        (example(id=None), "line 2: `id` must be a number or a text"),
        (example(tag=["Relation"]), "line 2: `tag` must be a text or missing"),
    ],
    "colorswap": [
        ({"0": colorswap_entry(0)}, "must be .*as ColorSwap has it"),
        ([example()], "`caption_2`, `image_2`"),
        ([colorswap_entry(0), colorswap_entry(0)], "the id '0' is already used"),
        ([colorswap_entry(0, id=None)], "`id` must be a number or a text"),
        ([colorswap_entry(0, caption_2=" ")], "`caption_2` must be a text that is not empty"),
        ([colorswap_entry(0, image_1="../secret.png")], "is not inside"),
        ([colorswap_entry(0, image_source=["midjourney"])], "`image_source` must be a text"),
        ([colorswap_entry(0, caption_1=[1] * 100_000)], r"its value is \[1, 1, .*\.\.\.\.$"),
        ([], "no items"),
    ],
    "mmvp-vlm": [
        (MMVP_ROWS[:3], "has 3 rows, which are not pairs"),
        ([], "has 0 rows"),
        (row(*MMVP_ROWS[4]), "line 3: the Type is 'Camera Perspective', but .*'Orientation'"),
        (row("2", "Orientation"), "line 3: the row has 2 fields"),
        (row("2", "Orientation", "a dog", "right"), "line 3: the row has 4 fields"),
        (row("two", "Orientation", "a dog"), "line 3: the Question ID must be a number.*'two'"),
        (row(*MMVP_ROWS[0]), "line 3: the Question ID 1 appears twice"),
        (row("2", "Orientation", " "), "line 3: `Statement` must be a text that is not empty"),
        ([("9" * 5000, "Orientation", "a dog"), MMVP_ROWS[1]], "line 2: .* at most 9 digits"),
        (row("2", "Orientation", "a" * 200_000), "field larger than field limit.*quotation mark"),
        ([("1", "..", "a"), ("2", "..", "b")], "is not inside"),
        ([("2", "State", "a"), ("3", "State", "b")], "the Question IDs 2 and 3 are no pair"),
        ([("1", "State", "a"), ("3", "State", "b")], "the Question IDs 1 and 3 are no pair"),
    ],
    "vg-relation": [
        ([case(None)], r"\[0\].*`relation_name`"),
        ({"0": entry(0)}, "must be"),
        ([], "no items"),
        ([case(bbox_x="2")], "`bbox_x` must be a whole number"),
        ([case(bbox_x=True)], "`bbox_x` must be a whole number"),
        ([case(true_caption="")], "`true_caption` must be a text that is not empty"),
        ([case(image_path="/etc/passwd")], "is not inside"),
        ([case("")], "`relation_name` must be"),
    ],
    "vg-attribution": [([case(None, attributes=["red"])], "`attributes` must be two texts")],
    "coco-order": [
        ([{"image": "a.jpg"}], "`caption`"),
        ([{"image": "a.jpg", "caption": []}], "`caption` must be a list of texts"),
        ([{"image": "a.jpg", "caption": ["dog runs", " "]}], "must be a text that is not empty"),
        ([{"image": "a.jpg", "caption": ["dog"]}], "no caption has words"),
        ([{"image": "a.jpg", "caption": ["a dog runs"]}] * 2, "twice"),
        ({"0": {"filename": "a"}}, "must be"),
        ({"items": [{"image": "a.jpg"}], "hash": "", "seed": 0}, "caption_options"),
        ({"items": []}, "hash"),
        ([{"image": "a.jpg", "caption_options": ["a dog"]}], "`caption_options`"),
    ],
    "sugarcrepe": [
        ([entry(0)], "must be .*as SugarCrepe has it"),
        ({}, "must be"),
        ({"0": {"filename": "a.jpg", "caption": "a"}}, "'0'.*`negative_caption`"),
        ({"0": case()}, "`negative_caption`"),
        ({"0": entry(0, caption=" ")}, "`caption` must be a text that is not empty"),
        ({"0": entry(0, caption="\ud800")}, "surrogate"),
        ({"0": entry(0, filename="../a.jpg")}, "is not inside"),
        ({"0": 3}, "must be an object"),
    ],
    "sugarcrepe-pp": [
        ([entry(0, id=1)], "`caption2`"),
        ([entry(0, id=1, caption2="x")] * 2, "the id '1' is already used"),
        ([entry(0, id=[1], caption2="x")], "`id` must be"),
        ({"0": entry(0)}, "must be"),
        ([], "no items"),
    ],
    "whats-up": [
        ({"0": photograph()}, "must be .*as What'sUp has it"),
        (COCO_SPATIAL["coco_qa_one_obj"], "must be .*as What'sUp has it"),
        ([{"image": "a.jpg", "caption_options": ["a", "b"]}], r"\[0\]: `image_path` is missing"),
        ([photograph(caption_options="a mug")], "fewer than two captions"),
        ([photograph(caption_options=["a mug"])], "fewer than two captions"),
        ([photograph(caption_options=["a mug", ""])], "must be a text that is not empty"),
        ([photograph(image_path="data/x/mug_above_table.jpeg")], "'mug_above_table' does not say .*left"),
        ([photograph(image_path="data/controlled_images/7.jpeg")], "'7' does not say"),
        ([photograph(image_path="../mug_on_table.jpeg")], "is not inside"),
        ([photograph(image_path="/etc/mug_on_table.jpeg")], "is not inside"),
    ],
    "coco-spatial": [
        ([], LIST_OF_TRIPLES),
        ({"0": [7, "a", "b"]}, LIST_OF_TRIPLES),
        ([[7, "a"]], LIST_OF_TRIPLES),
        ([[7, "a", "b", "c"]], LIST_OF_TRIPLES),
        ([[None, "a", "b"]], LIST_OF_TRIPLES),
        ([[True, "a", "b"]], LIST_OF_TRIPLES),
        ([photograph()], LIST_OF_TRIPLES),
    ],
    "half-truths": [
        ("{not json", "line 2: the line is not JSON"),
        ("[1]", "line 2: the line is not a JSON object.*as Half-Truths has it"),
        ({"image": "a", "anchor": "a", "half_truth": "b"}, "line 2: `full_truth`, `triplet_type` is missing"),
        (half_truth(1, image={"bytes": "", "path": "1.jpg"}), "line 2: `image` must be a text"),
        (half_truth(1, anchor=""), "line 2: `anchor` must be a text that is not empty"),
        (half_truth(1, image="/etc/passwd"), "is not inside"),
    ],
    "retrieval": [
        (3, "must be"),
        ({"images": []}, "must be"),
        ({"images": [{"id": 0, "file_name": "a"}], "annotations": []}, "no captions"),
        (
            {"images": [{"id": 0, "file_name": "a"}], "annotations": [{"image_id": 0, "caption": ""}]},
            "must be a text that is not empty",
        ),
        (
            {
                "images": [{"id": 0, "file_name": "a"}, {"id": 1, "file_name": "b"}],
                "annotations": [{"image_id": 0, "caption": "a dog"}],
            },
            "1 of 2 images have no caption",
        ),
    ],
}


def save(file: Path, content: Any) -> None:
    """A line stands below a sound one."""
    if file.suffix == ".csv":
        save_mmvp(file.parent, content)
    elif file.suffix == ".jsonl":
        line = content if isinstance(content, str) else json.dumps(content)
        file.write_text(f"{json.dumps(SOUND_LINES[file.name])}\n{line}\n")
    else:
        file.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("benchmark", "content", "words"),
    [(benchmark, *refused) for benchmark, rows in REFUSED.items() for refused in rows],
)
def test_wrong_file_is_refused_by_name(benchmark: str, content: Any, words: str, tmp_path: Path) -> None:
    file = tmp_path / FILES[benchmark]
    (tmp_path / "images").mkdir()
    save(file, content)
    with pytest.raises((DataError, EvaluationError), match=words) as raised:
        read_benchmark(benchmark, file, work=tmp_path / "work")
    assert file.name in str(raised.value)
    assert len(str(raised.value)) < 1000


@pytest.mark.parametrize(
    ("benchmark", "words"),
    [
        ("winoground", r"examples\.jsonl"),
        ("colorswap", r"test\.json"),
        ("mmvp-vlm", r"Questions\.csv"),
        ("vg-relation", r"visual_genome_relation\.json"),
        ("sugarcrepe", r"none of add_att\.json"),
        ("half-truths", r"none of coco_qwen\.jsonl, coco_mistral\.jsonl"),
        ("gqa-spatial", r"none of vg_qa_one_obj\.json, vg_qa_two_obj\.json"),
    ],
)
def test_folder_of_something_else_is_refused(benchmark: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match=words):
        read_benchmark(benchmark, tmp_path, work=tmp_path / "work")
