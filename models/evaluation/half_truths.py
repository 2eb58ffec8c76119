"""Half-Truths: does a wrong detail lower the score of a true caption? (Kargi et al. 2026, arXiv 2602.23906)

Each item has an image, a short true caption (the anchor), the anchor with a wrong detail (the half-truth), and the
anchor with a right one (the full truth). The detail is an entity or a relation. There are three sources.

The hub (kbora/Half-Truths) has Parquet files of each source, with the images inside. Like the authors'
scripts/evaluate_half_truth.py (github.com/kargibora/CS-CLIP at commit 6b064a0158e2ee02d8e0c8dc5b1f59c7d7a3d1fd), this
module also reads JSONL, whose images are files:

    {"image": "images/1.jpg", "anchor": "...", "half_truth": "...", "full_truth": "...", "triplet_type": "entity"}
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sds_clip.models.evaluation.benchmark import Benchmark, check_finite, outcome_of
from sds_clip.models.evaluation.caption_choice import MICRO, OUTCOME, caption_scores
from sds_clip.models.evaluation.image_check import Say
from sds_clip.models.evaluation.items import Item
from sds_clip.models.evaluation.layouts import Layout
from sds_clip.models.evaluation.results import Results
from sds_clip.models.evaluation.scorers import Scorer
from sds_clip.models.images.tables import table_files

ORDERING = "ordering"
CHANCE = {OUTCOME: 1 / 2, ORDERING: 1 / 6}


@dataclass(frozen=True)
class HalfTruths(Benchmark):
    """Items of one image with a full truth, an anchor and a half-truth, in this order."""

    macro_tags: tuple[str, ...]

    def measure(self, items: Sequence[Item], scorer: Scorer, say: Say) -> Results:
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
        return caption_scores(self.name, outcomes, names, lambda _, name: CHANCE[name], self.macro_tags)


LAYOUT = Layout(
    title="Half-Truths",
    words="an object with image, anchor, half_truth, full_truth and triplet_type, as Half-Truths has it",
    files={f"{source}.jsonl": source for source in ("coco_qwen", "coco_mistral", "cc3m_qwen")},
    is_lines=True,
    keys=("full_truth", "anchor", "half_truth", "image", "triplet_type"),
    images=("image",),
    captions=("full_truth", "anchor", "half_truth"),
    tags=lambda record: [record.text("triplet_type")],
)


def half_truths(path: Path, images: Path | None = None) -> HalfTruths:
    """Read one source, or those that a folder holds, as tables too.

    Every source is a tag, and so are its entities and relations. Raises: as `Layout.read`.
    """
    has_lines = any((path / name).is_file() for name in LAYOUT.files)
    tables = [] if has_lines else table_files(path, several_splits=True)
    items, sources = LAYOUT.read(path, images, tables)
    return HalfTruths("half-truths", items, LAYOUT.missing(sources), sources)
