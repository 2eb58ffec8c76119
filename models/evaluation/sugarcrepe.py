"""SugarCrepe and SugarCrepe++: COCO images, true captions, and a fluent false one.

SugarCrepe is seven files over COCO val2017, {"0": {filename, caption, negative_caption}, ...}, whose keys
have gaps. SugarCrepe++ is lists of {id, filename, caption, caption2, negative_caption}; both captions are
true. It has two tasks, of which the text-only one compares the captions with each other, and needs no images (arXiv
2406.11171; VLMs/test_Variants_CLIP.py of github.com/Sri-Harsha/scpp computes both).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jaxtyping import Float
from torch import Tensor

from models.errors import EvaluationError
from models.evaluation.annotations import (
    annotation_files,
    by_id,
    files_missing,
    image_folder,
    image_path,
    read_json,
    read_records,
    require_keys,
    text_of,
)
from models.evaluation.benchmark import Benchmark, BenchmarkScores, check_finite, outcome_of
from models.evaluation.caption_choice import MICRO, OUTCOME, CaptionChoice, caption_scores
from models.evaluation.checked import Say
from models.evaluation.items import Item
from models.evaluation.results import ImageRegion, ItemOutcome
from models.evaluation.scorers import Scorer, cosines, features_of

FILES = ("add_att", "add_obj", "replace_att", "replace_obj", "replace_rel", "swap_att", "swap_obj")
_FILES = tuple(f"{stem}.json" for stem in FILES)
LAYOUT = '{"0": {filename, caption, negative_caption}, ...}, as SugarCrepe has it'
LAYOUT_PP = "a list of {id, filename, caption, caption2, negative_caption}, as SugarCrepe++ has it"

_ITEMS = 512  # items whose features are in memory at once
_KEYS = ("filename", "caption", "negative_caption")
_KEYS_PP = ("id", "filename", "caption", "caption2", "negative_caption")


def sugarcrepe(path: Path, images: Path | None = None) -> CaptionChoice:
    """Read one of the seven files, or those that a folder holds. Every file is a tag.

    Images are in `images`, or by default in `val2017/`, `images/` or next to the files.

    Raises:
        EvaluationError: no such files, or one is not laid out as SugarCrepe's.
    """
    files = annotation_files(path, _FILES, "SugarCrepe")
    folder = _image_folder(path, images)
    items = [item for file in files for item in _read(file, folder)]
    tags = tuple(file.stem for file in files)
    return CaptionChoice("sugarcrepe", tuple(items), files_missing(files, _FILES), macro_tags=tags)


def sugarcrepe_pp(path: Path, images: Path | None = None) -> CaptionChoice:
    """Read SugarCrepe++ files: one, or all `.json` of a folder.

    Both true captions must score above the false one.

    Raises: as `sugarcrepe`.
    """
    files = annotation_files(path, None, "SugarCrepe++")
    folder = _image_folder(path, images)
    items = [item for file in files for item in _read_pp(file, folder)]
    tags = tuple(file.stem for file in files)
    return CaptionChoice("sugarcrepe-pp", tuple(items), {}, positives=2, macro_tags=tags)


def sugarcrepe_pp_text(path: Path) -> TextOnly:
    """Read the same files for the text-only task, without their images.

    Raises: as `sugarcrepe`.
    """
    files = annotation_files(path, None, "SugarCrepe++")
    items = [item for file in files for item in _read_pp(file, None)]
    return TextOnly("sugarcrepe-pp-text", tuple(items), {}, tuple(file.stem for file in files))


@dataclass(frozen=True)
class TextOnly(Benchmark):
    """Items of two true captions and a false one, without an image. The text encoder alone is measured."""

    macro_tags: tuple[str, ...]

    def measure(self, items: Sequence[Item], scorer: Scorer, say: Say | None) -> BenchmarkScores:
        """Compute the share of items whose true captions are closer to each other than to the false one.

        Chance is 1/3, since any of the three similarities may be the highest.
        """
        clip = features_of(scorer)
        outcomes: list[ItemOutcome] = []
        for start in range(0, len(items), _ITEMS):
            chunk = items[start : start + _ITEMS]
            features = clip.text_features([caption for item in chunk for caption in item.captions])
            features = features.reshape(len(chunk), 3, -1)
            for item, similarities in zip(chunk, cosines(features, features), strict=True):
                check_finite(similarities)
                outcomes.append(outcome_of(item, {OUTCOME: text_only_margin(similarities)}))
        return caption_scores(outcomes, {MICRO: OUTCOME}, lambda *_: 1 / 3, self.macro_tags)


def text_only_margin(similarities: Float[Tensor, "3 3"]) -> float:
    """Return s(c, c2) - max(s(c, n), s(c2, n)) for the captions c and c2 and the false one n, in this order."""
    (_, both, first), (_, _, second), _ = similarities.double().tolist()
    return float(both - max(first, second))


def _image_folder(path: Path, images: Path | None) -> Path:
    return image_folder(images, path if path.is_dir() else path.parent, "val2017", "images")


def _read(file: Path, folder: Path) -> list[Item]:
    content = read_json(file, LAYOUT)
    if not isinstance(content, dict) or not content:
        raise EvaluationError(f"{file} must be {LAYOUT}. Is it the file of another benchmark?")
    items = []
    for key, record in content.items():
        where = f"{file}, {key!r}"
        if not isinstance(record, dict):
            raise EvaluationError(f"{where} must be an object; the file must be {LAYOUT}.")
        require_keys(record, _KEYS, where, LAYOUT)
        items.append(
            _item(record, f"{file.stem}/{key}", ("caption", "negative_caption"), folder, file, where)
        )
    return items


def _read_pp(file: Path, folder: Path | None) -> list[Item]:
    numbered = read_records(file, _KEYS_PP, LAYOUT_PP)
    keys = ("caption", "caption2", "negative_caption")
    return [
        _item(record, f"{file.stem}/{record_id}", keys, folder, file, where)
        for record_id, (where, record) in by_id(numbered, file).items()
    ]


def _item(
    record: dict[str, Any],
    item_id: str,
    captions: tuple[str, ...],
    folder: Path | None,
    file: Path,
    where: str,
) -> Item:
    name = text_of(record, "filename", where)
    return Item(
        id=item_id,
        images=() if folder is None else (ImageRegion(image_path(folder, name, where)),),
        captions=tuple(text_of(record, key, where) for key in captions),
        tags=(file.stem,),
    )
