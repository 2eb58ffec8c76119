"""Small benchmark sets on the disk, laid out as they are published."""

import io
import json
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
