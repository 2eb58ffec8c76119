"""ColorSwap: two images and two captions in which the colours are swapped (Burapacheep et al. 2024, arXiv 2402.04492).

A set is a folder with `test.json`, a list, and `images/`:

    {"id": 0, "caption_1": "...", "caption_2": "...", "image_1": "images/img_0_1.png", "image_2": "images/img_0_2.png",
     "image_source": "midjourney", "caption_source": "human"}

This is the authors' download, as the README of github.com/Top34051/colorswap describes it; `train.json` has the same
form. The hub (stanfordnlp/colorswap) has the same records as Parquet, with the images inside. Images are made by
diffusion models.
"""

from pathlib import Path

from sds_clip.models.evaluation.annotations import Record, file_or_tables, image_folder
from sds_clip.models.evaluation.layouts import Layout
from sds_clip.models.evaluation.winoground import Winoground

_SOURCES = ("image_source", "caption_source")


def _tags(record: Record) -> list[str]:
    stated = [key for key in _SOURCES if record.values.get(key) not in (None, "")]
    return [f"{key.removesuffix('_source')}: {record.text(key)}" for key in stated]


LAYOUT = Layout(
    words="a list of {id, caption_1, caption_2, image_1, image_2}, as ColorSwap has it",
    keys=("id", "caption_1", "caption_2", "image_1", "image_2"),
    images=("image_1", "image_2"),
    captions=("caption_1", "caption_2"),
    tags=_tags,
    columns=_SOURCES,
)


def colorswap(path: Path, images: Path | None = None) -> Winoground:
    """Read the test set from its folder, one file of it, or a table.

    Images that are files are named from `images`, or from the file's folder.

    Raises:
        EvaluationError or DataError: no such file, or another layout.
    """
    give = "ColorSwap's test.json or its folder, or its Parquet file of the hub"
    files, is_table = file_or_tables(path, "test.json", give)
    records = LAYOUT.records(files, is_table=is_table)
    return Winoground("colorswap", LAYOUT.items(records, image_folder(images, files[0].parent)), {})
