"""Winoground as a benchmark: text, image and group score and GroupMatch, with tags of four kinds."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from models.evaluation.benchmark import Benchmark, check_finite, outcome_of
from models.evaluation.checked import Say
from models.evaluation.errors import EvaluationError
from models.evaluation.items import Item
from models.evaluation.json_files import read_json
from models.evaluation.measured import Measured, Tie, grouped_by_tag, share
from models.evaluation.results import GROUP_MATCH, ImageRegion, ItemOutcome, Metric
from models.evaluation.scorers import Scorer
from models.evaluation.winoground import (
    CHANCE,
    UNTAGGED,
    WinogroundItem,
    d_prime,
    group_match_margins,
    read_winoground,
)

NEW_TAGS = "new_tag_assignments.json"
"""{"id": [tags]}: the tags of Diwan et al., "Why is Winoground Hard?" (arXiv 2211.00768)."""

OUTCOMES = {"text_score": "text", "image_score": "image", "group_score": "group", GROUP_MATCH: GROUP_MATCH}


@dataclass(frozen=True)
class Winoground(Benchmark):
    """Items of two images and two captions; caption k describes image k."""

    def measure(self, items: Sequence[Item], scorer: Scorer, say: Say | None) -> Measured:
        """Shares of items with text, image, both and GroupMatch right, strictly: a tie is wrong, and counted."""
        outcomes: list[ItemOutcome] = []
        tied: dict[str, set[str]] = {}
        for item, scores in zip(items, scorer.scores(items, say), strict=True):
            check_finite(scores)
            outcomes.append(outcome_of(item, winoground_margins(scores)))
            tied[item.id] = winoground_ties(scores)

        def tie(item: ItemOutcome, name: str) -> bool:
            return name in tied[item.id]

        return Measured(
            primary="group_score",
            outcome="group",
            metrics=_shares(outcomes, tie),
            by_tag={tag: _shares(tagged, tie) for tag, tagged in grouped_by_tag(outcomes).items()},
            items=tuple(outcomes),
        )


def _shares(outcomes: Sequence[ItemOutcome], tie: Tie) -> dict[str, Metric]:
    found = {
        metric: share(outcomes, name, lambda _, name: CHANCE[name], tie) for metric, name in OUTCOMES.items()
    }
    margins = torch.tensor([item.margins[GROUP_MATCH] for item in outcomes], dtype=torch.float64)
    return found | {GROUP_MATCH: replace(found[GROUP_MATCH], d_prime=d_prime(margins))}


def winoground_margins(scores: Float[Tensor, "2 2"]) -> dict[str, float]:
    """By how much `scores[caption, image]` is right: the least difference that must be above 0, or their sum."""
    (c0i0, c0i1), (c1i0, c1i1) = scores.double().tolist()
    text = min(c0i0 - c1i0, c1i1 - c0i1)
    image = min(c0i0 - c0i1, c1i1 - c1i0)
    match = float(group_match_margins(scores[None]))
    return {"text": text, "image": image, "group": min(text, image), GROUP_MATCH: match}


def winoground_ties(scores: Float[Tensor, "2 2"]) -> set[str]:
    """Which outcomes compare two equal scores (or sums of two), as `winoground_metrics` counts them."""
    (c0i0, c0i1), (c1i0, c1i1) = scores.tolist()
    ties = {"text"} if c0i0 == c1i0 or c1i1 == c0i1 else set()
    ties |= {"image"} if c0i0 == c0i1 or c1i1 == c1i0 else set()
    ties |= {"group"} if ties else set()
    return ties | ({GROUP_MATCH} if float(group_match_margins(scores[None])) == 0 else set())


def winoground_benchmark(path: Path) -> Winoground:
    """Read a set; `new_tag_assignments.json` beside `examples.jsonl` adds tags. Missing images are left to the check.

    Raises:
        EvaluationError: as `read_winoground`, or the tag file is not {"id": [tags]} of this set.
    """
    records = read_winoground(path, allow_missing=True)
    folder = path if path.is_dir() else path.parent
    new_tags = _new_tags(folder / NEW_TAGS, {record.id for record in records})
    same = all(record.tag == record.collapsed_tag for record in records)
    items = tuple(
        Item(
            id=record.id,
            images=tuple(ImageRegion(image) for image in record.images),
            captions=record.captions,
            tags=(*_tags(record, same), *(f"new: {tag}" for tag in new_tags.get(record.id, ()))),
        )
        for record in records
    )
    return Winoground("winoground", items, {})


def _tags(record: WinogroundItem, same: bool) -> list[str]:
    """The collapsed tag as it is, the finer ones named by their kind: `Relation` is both."""
    tags = [record.collapsed_tag or UNTAGGED]
    if record.tag and not same:
        tags.append(f"tag: {record.tag}")
    if record.secondary_tag:
        tags.append(f"secondary: {record.secondary_tag}")
    return tags


def _new_tags(file: Path, ids: set[str]) -> dict[str, list[str]]:
    if not file.is_file():
        return {}
    content = read_json(file, '{"id": [tags]}')
    if not isinstance(content, dict) or not all(
        isinstance(tags, list) and all(isinstance(tag, str) for tag in tags) for tags in content.values()
    ):
        raise EvaluationError(f'{file}: must be {{"id": [tags]}}, a list of texts for every id.')
    unknown = sorted(content.keys() - ids)
    if unknown:
        raise EvaluationError(
            f"{file}: has tags for {json.dumps(unknown[0])}, which the set has no item of; it belongs to another set."
        )
    return content
