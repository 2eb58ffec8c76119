"""Small benchmark sets on the disk, laid out as they are published."""

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

CAPTION = "a small red dog chases the big old cat across a green garden"
CLASSES = ["brown_dog", "cat", "fox", "owl", "pig", "rat", "yak"]


def save_set(folder: Path, count: int, **fields: list[Any]) -> Path:
    """A set whose images are of `count` * 2 colours; `fields[name][k]` is the k-th item's."""
    (folder / "images").mkdir(parents=True)
    lines = []
    for number in range(count):
        for side in (0, 1):
            colour = (number * 7 % 256, 100 * side, number * 31 % 256)
            Image.new("RGB", (10, 10), colour).save(folder / f"images/ex_{number}_img_{side}.png")
        lines.append(
            {
                "id": number,
                "image_0": f"ex_{number}_img_0",
                "image_1": f"ex_{number}_img_1",
                "caption_0": f"red over blue {number}",
                "caption_1": f"blue over red {number}",
            }
            | {name: values[number] for name, values in fields.items()}
        )
    (folder / "examples.jsonl").write_text("\n".join(json.dumps(line) for line in lines))
    return folder


def case(relation: str | None = "behind", **changes: Any) -> dict[str, Any]:
    about: dict[str, Any] = (
        {"attributes": ["red", "old"]} if relation is None else {"relation_name": relation}
    )
    return {
        "image_path": "7.jpg",
        "bbox_x": 2,
        "bbox_y": 3,
        "bbox_w": 20,
        "bbox_h": 10,
        "true_caption": "the dog is behind the cat",
        "false_caption": "the cat is behind the dog",
        **about,
    } | changes


def save_cases(folder: Path, cases: Any, name: str = "visual_genome_relation.json") -> Path:
    (folder / "images").mkdir(exist_ok=True)
    halves = Image.new("RGB", (40, 30), "red")
    halves.paste("blue", (20, 0, 40, 30))
    halves.save(folder / "images/7.jpg", quality=95)
    (folder / name).write_text(json.dumps(cases))
    return folder


def save_captions(folder: Path, captions: list[list[str]], name: str = "coco_karpathy_test.json") -> Path:
    records = []
    for number, texts in enumerate(captions):
        image = f"val2014/{number}.jpg"
        (folder / "val2014").mkdir(exist_ok=True)
        Image.new("RGB", (9, 9), (number, 0, 0)).save(folder / image)
        records.append({"image": image, "caption": texts})
    (folder / name).write_text(json.dumps(records))
    return folder


def entry(number: int, **changes: Any) -> dict[str, Any]:
    return {
        "filename": f"{number:012}.jpg",
        "caption": f"a dog {number}",
        "negative_caption": f"a cat {number}",
    } | changes


def save_files(folder: Path, **files: Any) -> Path:
    (folder / "val2017").mkdir(parents=True, exist_ok=True)
    for number in range(8):
        image = Image.new("RGB", (12, 9), (number * 20, 90, 0))
        image.save(folder / f"val2017/{number:012}.jpg")
    for name, content in files.items():
        (folder / f"{name}.json").write_text(json.dumps(content))
    return folder


def picture(number: int, format: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    pixels = np.random.default_rng(number).integers(0, 256, (5, 6, 3), dtype=np.uint8)
    Image.fromarray(pixels).resize((24, 20)).save(buffer, format)
    return buffer.getvalue()


def save_folders(folder: Path, per_class: int = 3) -> Path:
    for target, name in enumerate(CLASSES):
        (folder / name).mkdir(parents=True)
        for number in range(per_class):
            (folder / name / f"{number}.png").write_bytes(picture(10 * target + number))
    return folder


def save_pictures(folder: Path, *names: str) -> None:
    for number, name in enumerate(names):
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(picture(number, "PNG" if file.suffix == ".png" else "JPEG"))


def colorswap_entry(number: int, **changes: Any) -> dict[str, Any]:
    return {
        "id": number,
        "caption_1": f"a red cup {number} on a blue table",
        "caption_2": f"a blue cup {number} on a red table",
        "image_1": f"images/img_{number}_1.png",
        "image_2": f"images/img_{number}_2.png",
        "image_source": "midjourney",
        "caption_source": "human",
    } | changes


def save_colorswap(folder: Path, entries: Any = None, name: str = "test.json") -> Path:
    save_pictures(folder, *(f"images/img_{number}_{side}.png" for number in range(4) for side in (1, 2)))
    content = [colorswap_entry(0), colorswap_entry(1)] if entries is None else entries
    (folder / name).write_text(json.dumps(content))
    return folder


MMVP_ROWS = [
    ("1", "Orientation", "the dog faces left"),
    ("2", "Orientation", "the dog faces right"),
    ("3", "Orientation", "a fork, tines up"),
    ("4", "Orientation", "a fork, tines down"),
    ("5", "Camera Perspective", "a street from above"),
    ("6", "Camera Perspective", "a street from the ground"),
]


def save_mmvp(
    folder: Path,
    rows: Sequence[Sequence[str]] = MMVP_ROWS,
    header: Sequence[str] = ("Question ID", "Type", "Statement"),
) -> Path:
    save_pictures(folder, *(f"MLLM_VLM Images/{kind}/{number}.jpg" for number, kind, _ in MMVP_ROWS))
    with (folder / "Questions.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])
    return folder


WHATS_UP_A = ("controlled_images", "left_of", "right_of", "on", "under")
WHATS_UP_B = ("controlled_clevr", "left_of", "right_of", "in-front_of", "behind")


def controlled_entries(subset: tuple[str, ...], first: str, second: str) -> list[dict[str, Any]]:
    """The four images of a set of two objects, each with its true caption first."""
    folder, *relations = subset
    said = [f"A {first} {relation.replace('_', ' ')} a {second}" for relation in relations]
    return [
        {
            "image_path": f"data/{folder}/{first}_{relation}_{second}.jpeg",
            "caption_options": [said[place], *said[:place], *said[place + 1 :]],
        }
        for place, relation in enumerate(relations)
    ]


def save_controlled(folder: Path, **files: Any) -> Path:
    """`controlled_images` and `controlled_clevr` as they are given, or two sets of A and one of B."""
    content = files or {
        "controlled_images": [
            *controlled_entries(WHATS_UP_A, "beer-bottle", "armchair"),
            *controlled_entries(WHATS_UP_A, "mug", "table"),
        ],
        "controlled_clevr": controlled_entries(WHATS_UP_B, "bowl", "plate"),
    }
    folder.mkdir(parents=True, exist_ok=True)
    for name, entries in content.items():
        (folder / f"{name}_dataset.json").write_text(json.dumps(entries))
        for entry in entries if isinstance(entries, list) else []:
            if isinstance(entry, dict) and str(entry.get("image_path")).startswith("data/"):
                save_pictures(folder, str(entry["image_path"]).removeprefix("data/"))
    return folder


COCO_SPATIAL = {
    "coco_qa_one_obj": [
        [7, "A photo of a dog on the left", "A photo of a dog on the right"],
        [8, "A photo of a cat on the top", "A photo of a cat on the bottom"],
        [8, "A photo of a cup on the left", "A photo of a cup on the right"],
    ],
    "coco_qa_two_obj": [
        [7, "A photo of a dog to the left of a cat", "A photo of a dog to the right of a cat"],
        [9, "A photo of a cat below a cup", "A photo of a cat above a cup"],
    ],
}
GQA_SPATIAL = {
    "vg_qa_one_obj": [["2317", "A photo of a dog on the bottom", "A photo of a dog on the top"]],
    "vg_qa_two_obj": [
        [713, "A photo of a dog to the front of a cat", "A photo of a dog to the behind of a cat"],
        ["2317", "A photo of a cup on top of a table", "A photo of a cup at the bottom of a table"],
    ],
}


def save_coco_spatial(folder: Path, **files: Any) -> Path:
    save_pictures(folder, *(f"val2017/{number:012}.jpg" for number in (7, 8, 9)))
    return _save_json(folder, files or COCO_SPATIAL)


def save_gqa_spatial(folder: Path, **files: Any) -> Path:
    save_pictures(folder, "vg_images/2317.jpg", "vg_images/713.jpg")
    return _save_json(folder, files or GQA_SPATIAL)


def _save_json(folder: Path, files: dict[str, Any]) -> Path:
    for name, content in files.items():
        (folder / f"{name}.json").write_text(json.dumps(content))
    return folder


def half_truth(number: int, kind: str = "entity", **changes: Any) -> dict[str, Any]:
    return {
        "id": number,
        "image": f"images/{number}.jpg",
        "anchor": f"a woman {number}",
        "half_truth": f"a woman {number} and a printer",
        "full_truth": f"a woman {number} and a computer",
        "triplet_type": kind,
    } | changes


def save_half_truths(folder: Path, **files: Sequence[Any]) -> Path:
    save_pictures(folder, *(f"images/{number}.jpg" for number in range(6)))
    content = files or {
        "coco_qwen": [half_truth(0), half_truth(1, "relation")],
        "coco_mistral": [half_truth(2)],
        "cc3m_qwen": [half_truth(3, "relation")],
    }
    for name, lines in content.items():
        text = "\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines)
        (folder / f"{name}.jsonl").write_text(text + "\n")
    return folder
