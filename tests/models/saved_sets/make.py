"""Writes the sets beside this file with Hugging Face's library, whose version is in their `about.txt`.

python3 -m venv /tmp/datasets && /tmp/datasets/bin/pip install datasets==5.2.0 pillow
/tmp/datasets/bin/python tests/models/saved_sets/make.py
"""

import json
import shutil
from pathlib import Path

import datasets
from datasets import ClassLabel, Dataset, DatasetDict, Features, Image, List, Value
from PIL import Image as Pictures

HERE = Path(__file__).parent
PAIRS = Features(
    {"image": Image(), "caption": List(Value("string")), "label": ClassLabel(names=["cat", "dog"])}
)
WINOGROUND = (
    "id",
    "image_0",
    "image_1",
    "caption_0",
    "caption_1",
    "tag",
    "secondary_tag",
    "num_main_preds",
    "collapsed_tag",
)


def picture(level: int) -> Pictures.Image:
    return Pictures.new("RGB", (8, 6), (level, level, level))


def pairs(levels: list[int]) -> Dataset:
    return Dataset.from_dict(
        {
            "image": [picture(level) for level in levels],
            "caption": [[f"grey {level}", f"a grey {level}"] for level in levels],
            "label": [level % 2 for level in levels],
        },
        features=PAIRS,
    )


def main() -> None:
    for folder in HERE.iterdir():
        if folder.is_dir():
            shutil.rmtree(folder)
    pairs([0, 1, 2, 3, 4]).save_to_disk(str(HERE / "shards"), num_shards=2)
    pairs([9, 0, 1, 2]).select([2, 1]).save_to_disk(str(HERE / "selected"))
    DatasetDict({"train": pairs([0, 1]), "test": pairs([2])}).save_to_disk(str(HERE / "splits"))
    DatasetDict({"train": pairs([5, 6])}).save_to_disk(str(HERE / "one_split"))
    (HERE / "parquet").mkdir()
    pairs([0, 1, 2, 3, 4]).to_parquet(str(HERE / "parquet/train-00000-of-00001.parquet"), batch_size=2)

    photos = HERE / "photos"  # as a folder of images with metadata.jsonl, which the library loads and saves
    photos.mkdir()
    lines = []
    for level in range(2):
        picture(level).save(photos / f"{level}.png")
        lines.append(json.dumps({"file_name": f"{level}.png", "text": f"grey {level}"}))
    (photos / "metadata.jsonl").write_text("\n".join(lines) + "\n")
    datasets.load_dataset("imagefolder", data_dir=str(photos), split="train").save_to_disk(
        str(HERE / "loaded")
    )

    rows = [
        (
            number,
            picture(number),
            picture(100 + number),
            f"red over blue {number}",
            f"blue over red {number}",
            "Relation",
            "",
            1,
            "Relation",
        )
        for number in range(3)
    ]
    columns = dict(zip(WINOGROUND, map(list, zip(*rows, strict=True)), strict=True))
    kinds = [Value("int32"), Image(), Image(), *[Value("string")] * 4, Value("int32"), Value("string")]
    winoground = Dataset.from_dict(columns, features=Features(dict(zip(WINOGROUND, kinds, strict=True))))
    winoground.save_to_disk(str(HERE / "winoground"))
    (HERE / "winoground_parquet/data").mkdir(parents=True)
    winoground.to_parquet(str(HERE / "winoground_parquet/data/test-00000-of-00001.parquet"))
    (HERE / "about.txt").write_text(f"datasets {datasets.__version__}\n")


if __name__ == "__main__":
    main()
