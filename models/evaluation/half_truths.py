"""Half-Truths: does a wrong detail lower the score of a true caption? (Kargi et al. 2026, arXiv 2602.23906)

Each item has an image, a short true caption (the anchor), the anchor with a wrong detail (the half-truth), and the
anchor with a right one (the full truth). The detail is an entity or a relation. There are three sources.

The hub (kbora/Half-Truths) has Parquet files of each source, with the images inside. Like the authors'
scripts/evaluate_half_truth.py (github.com/kargibora/CS-CLIP at commit 6b064a0158e2ee02d8e0c8dc5b1f59c7d7a3d1fd), this
module also reads JSONL, whose images are files:

    {"image": "images/1.jpg", "anchor": "...", "half_truth": "...", "full_truth": "...", "triplet_type": "entity"}
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from models.errors import EvaluationError
from models.evaluation.annotations import (
    annotation_files,
    files_missing,
    image_folder,
    image_of,
    read_table,
    require_keys,
    text_of,
)
from models.evaluation.benchmark import Benchmark, BenchmarkScores, check_finite, outcome_of
from models.evaluation.caption_choice import MICRO, OUTCOME, caption_scores
from models.evaluation.checked import Say
from models.evaluation.items import Item
from models.evaluation.scorers import Scorer
from models.files import read_lines
from models.tables import split_of, table_files

FILES = ("coco_qwen.jsonl", "coco_mistral.jsonl", "cc3m_qwen.jsonl")
LAYOUT = "an object with image, anchor, half_truth, full_truth and triplet_type, as Half-Truths has it"

ORDERING = "ordering"
CHANCE = {OUTCOME: 1 / 2, ORDERING: 1 / 6}

_CAPTIONS = ("full_truth", "anchor", "half_truth")
_KEYS = (*_CAPTIONS, "image", "triplet_type")


@dataclass(frozen=True)
class HalfTruths(Benchmark):
    """Items of one image with a full truth, an anchor and a half-truth, in this order."""

    macro_tags: tuple[str, ...]

    def measure(self, items: Sequence[Item], scorer: Scorer, say: Say | None) -> BenchmarkScores:
        """Compute the authors' half-truth accuracy (`acc`) and correct-ordering rate, both strict as in their script.

        - half-truth accuracy: s(anchor) > s(half-truth)
        - correct ordering: s(full truth) > s(anchor) > s(half-truth)
        """
        outcomes = []
        for item, scores in zip(items, scorer.scores(items, say), strict=True):
            check_finite(scores)
            full, anchor, half = scores[:, 0].double().tolist()
            margins = {OUTCOME: anchor - half, ORDERING: min(full - anchor, anchor - half)}
            outcomes.append(outcome_of(item, margins))
        names = {MICRO: OUTCOME, "correct_ordering_rate": ORDERING}
        return caption_scores(outcomes, names, lambda _, name: CHANCE[name], self.macro_tags)


def half_truths(path: Path, images: Path | None = None) -> HalfTruths:
    """Read one source, or those that a folder holds. Every source is a tag, and so are its entities and relations.

    Images are named from `images`, or by default from the folder of the files.

    Raises:
        EvaluationError or DataError: no such files, or another layout.
    """
    has_lines = any((path / name).is_file() for name in FILES)
    tables = [] if has_lines else table_files(path, several_splits=True)
    files = tables or annotation_files(path, FILES, "Half-Truths")
    sources: dict[str, list[Path]] = {}
    for file in files:
        sources.setdefault(split_of(file), []).append(file)
    items = [item for source, shards in sources.items() for item in _read(source, shards, images)]
    return HalfTruths(
        "half-truths", tuple(items), files_missing([*map(Path, sources)], FILES), tuple(sources)
    )


def _read(source: str, shards: list[Path], images: Path | None) -> list[Item]:
    folder = image_folder(images, shards[0].parent)
    items = []
    for number, (where, record) in enumerate(_records(shards)):
        items.append(
            Item(
                id=f"{source}/{number}",
                images=(image_of(record, "image", where, folder),),
                captions=tuple(text_of(record, key, where) for key in _CAPTIONS),
                tags=(source, f"{source}: {text_of(record, 'triplet_type', where)}"),
            )
        )
    if not items:
        raise EvaluationError(f"{shards[0]} contains no items; download it again.")
    return items


def _records(shards: list[Path]) -> Iterator[tuple[str, dict[str, Any]]]:
    file = shards[0]
    if file.suffix.lower() != ".jsonl":
        yield from read_table(shards, _KEYS, (), LAYOUT)
        return
    for where, record in read_lines(file, EvaluationError, LAYOUT):
        require_keys(record, _KEYS, where, LAYOUT)
        yield where, record
