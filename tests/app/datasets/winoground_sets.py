"""Winoground sets, written to a folder."""

import json
from pathlib import Path
from typing import Any

from tests.pictures import picture


def item(number: int, **fields: Any) -> dict[str, Any]:
    return {
        "id": number,
        "image_0": f"ex_{number}_img_0",
        "image_1": f"ex_{number}_img_1",
        "caption_0": f"a {number} over b",
        "caption_1": f"b over a {number}",
        "collapsed_tag": "Relation",
        **fields,
    }


def save_set(folder: Path, items: list[dict[str, Any]]) -> Path:
    (folder / "images").mkdir(parents=True)
    for number in range(len(items)):
        for side in (0, 1):
            (folder / "images" / f"ex_{number}_img_{side}.png").write_bytes(picture(2 * number + side))
    (folder / "examples.jsonl").write_text("".join(json.dumps(each) + "\n" for each in items))
    return folder
