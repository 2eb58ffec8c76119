"""Benchmarks that choose an image's captions: every true one must score strictly above every false one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import comb

from models.evaluation.benchmark import Benchmark, BenchmarkScores, check_finite, outcome_of
from models.evaluation.checked import Say
from models.evaluation.items import Item
from models.evaluation.metrics import mean_over_tags, share, shares_by_tag
from models.evaluation.results import ItemOutcome, Metric
from models.evaluation.scorers import Scorer

OUTCOME = "text"
MICRO, MACRO = "acc", "macro_acc"
"""`acc` is over all items, under CLIP_benchmark's name. `macro_acc` is the mean over tags."""


@dataclass(frozen=True)
class CaptionChoice(Benchmark):
    """Items of one image, whose first `positives` captions are true and the others false."""

    positives: int = 1
    macro_tags: tuple[str, ...] | None = None
    """Tags that the macro figure, then the primary one, averages over. None if there is no macro figure."""

    def measure(self, items: Sequence[Item], scorer: Scorer, say: Say | None) -> BenchmarkScores:
        """Compute the share of items that are right, over all and by tag. A tie is wrong, and counted."""
        outcomes: list[ItemOutcome] = []
        for item, scores in zip(items, scorer.scores(items, say), strict=True):
            check_finite(scores)
            of_captions = scores[:, 0].double()
            margin = of_captions[: self.positives].min() - of_captions[self.positives :].max()
            outcomes.append(outcome_of(item, {OUTCOME: float(margin)}))
        return self._measured(tuple(outcomes))

    def _measured(self, outcomes: tuple[ItemOutcome, ...]) -> BenchmarkScores:
        by_tag = shares_by_tag(outcomes, {MICRO: OUTCOME}, self._chance)
        metrics: dict[str, Metric] = {}
        tags: tuple[str, ...] = ()
        if self.macro_tags is not None:
            # A tag is missing if all of its items were left out.
            tags = tuple(tag for tag in self.macro_tags if tag in by_tag)
        if tags:
            metrics[MACRO] = mean_over_tags(by_tag, tags, MICRO)
        metrics[MICRO] = share(outcomes, OUTCOME, self._chance)
        return BenchmarkScores(
            primary=MACRO if tags else MICRO,
            outcome=OUTCOME,
            metrics=metrics,
            by_tag=by_tag,
            items=outcomes,
            macro_tags=tags,
        )

    def _chance(self, item: ItemOutcome, _: str) -> float:
        """Return the probability that a random order of the captions puts the true ones first."""
        return 1 / comb(len(item.captions), self.positives)
