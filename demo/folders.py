"""Writes the demo world's sets in the layouts of published benchmarks: `python -m sds_clip.demo.folders DIR`.

    DIR/PART/retrieval/   captions.json and images       sds-clip evaluate retrieval --data .../captions.json
    DIR/PART/zero-shot/   CLIP_benchmark's WebDataset    sds-clip evaluate zero-shot --data ...
    DIR/PART/winoground/  Winoground's layout            sds-clip evaluate winoground --data ...
    DIR/PART/color-swap/  ColorSwap's items in the same layout
    DIR/PART/whats-up/    What'sUp's layout              sds-clip evaluate whats-up --data ...

PART is heldout or validation. demo/data/PART holds the first 150 items of each kind. Another --seed draws other items.
"""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from sds_clip.demo.options import MEASURED, count, parser_of, run
from sds_clip.demo.sets import CLASS_TEMPLATES, Labelled, Pairs, classification_set, retrieval_set
from sds_clip.demo.whats_up_sets import whats_up_items, write_whats_up
from sds_clip.demo.winoground_sets import (
    COLOR_SWAP,
    ITEMS_PER_KIND,
    winoground_items,
    write_winoground,
)  # fmt: skip
from sds_clip.demo.world import Split
from sds_clip.models.data.pairs import PairSet


def write_pairs(folder: Path, content: Pairs) -> None:
    """Write pairs as a folder of images with captions of the same name."""
    folder.mkdir(parents=True)
    for number, (pixels, caption) in enumerate(zip(content.images, content.captions, strict=True)):
        (folder / f"{number:05d}.png").write_bytes(_png(pixels))
        (folder / f"{number:05d}.txt").write_text(caption, encoding="utf-8")


def write_image_folder(folder: Path, pairs: PairSet) -> None:
    """Write pairs with their hard negatives as an image folder with `metadata.jsonl`."""
    folder.mkdir(parents=True)
    lines = []
    for number in range(len(pairs)):
        sample, name = pairs.sample(number), f"{number:05d}.png"
        pairs.image(number).save(folder / name)
        line = {"file_name": name, "text": sample.captions[0], "neg_caption": sample.negatives[0]}
        lines.append(json.dumps(line))
    (folder / "metadata.jsonl").write_text("\n".join(lines), encoding="utf-8")


def write_retrieval(folder: Path, content: Pairs) -> None:
    """Write pairs as a captions file and its images."""
    folder.mkdir(parents=True)
    records = []
    for number, (pixels, caption) in enumerate(zip(content.images, content.captions, strict=True)):
        (folder / f"{number:05d}.png").write_bytes(_png(pixels))
        records.append({"image": f"{number:05d}.png", "caption": [caption]})
    (folder / "captions.json").write_text(json.dumps(records, indent=0), encoding="utf-8")


def write_zero_shot(folder: Path, content: Labelled) -> None:
    """Write labelled images as one shard, with the names of all classes, even those without an image."""
    (folder / "test").mkdir(parents=True)
    (folder / "classnames.txt").write_text("\n".join(content.labels), encoding="utf-8")
    templates = [template.replace("{}", "{c}") for template in CLASS_TEMPLATES]
    (folder / "zeroshot_classification_templates.txt").write_text("\n".join(templates), encoding="utf-8")
    with tarfile.open(folder / "test" / "0.tar", "w") as shard:
        for number, (pixels, target) in enumerate(zip(content.images, content.targets, strict=True)):
            for extension, data in (("png", _png(pixels)), ("cls", str(target).encode())):
                member = tarfile.TarInfo(f"s{number:07d}.{extension}")
                member.size = len(data)
                shard.addfile(member, io.BytesIO(data))


def _png(pixels: UInt8[np.ndarray, "h w 3"]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("folder", type=Path, metavar="DIR", help="Folder into which the sets are written.")
    parser.add_argument(
        "--items",
        type=count,
        default=ITEMS_PER_KIND,
        help="Number of items of each kind that compares captions.",
    )
    parser.add_argument(
        "--seed", type=int, help="Seed of these items. By default they are those of demo/data."
    )
    parser.add_argument(
        "--split",
        type=Split,
        choices=MEASURED,
        action="append",
        help="A part; repeat the option for both (default: both).",
    )
    options = parser.parse_args()
    seed = {} if options.seed is None else {"seed": options.seed}
    for split in options.split or (Split.VALIDATION, Split.HELD_OUT):
        folder = options.folder / split
        write_retrieval(folder / "retrieval", retrieval_set(split))
        write_zero_shot(folder / "zero-shot", classification_set(split))
        write_winoground(folder / "winoground", winoground_items(split, options.items, **seed))
        write_winoground(
            folder / "color-swap", winoground_items(split, options.items, kinds=[COLOR_SWAP], **seed)
        )
        write_whats_up(folder / "whats-up", whats_up_items(split, options.items, **seed))
        print(folder)


if __name__ == "__main__":
    run(main)
