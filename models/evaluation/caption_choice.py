"""Benchmarks that choose an image's captions: every true one must score strictly above every false one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import comb, prod

from sds_clip.models.evaluation.benchmark import Benchmark, check_finite, outcome_of
from sds_clip.models.evaluation.image_check import Say
from sds_clip.models.evaluation.items import Item
from sds_clip.models.evaluation.metrics import Chance, Whole, mean_over_tags, share, shares_by_tag
from sds_clip.models.evaluation.results import ItemOutcome, Metric, Results
from sds_clip.models.evaluation.scorers import Scorer

OUTCOME = "text"
MICRO, MACRO = "acc", "macro_acc"
"""`acc` is over all items, under CLIP_benchmark's name. `macro_acc` is the mean over tags."""


@dataclass(frozen=True)
class CaptionChoice(Benchmark):
    """Items of one image, whose first `positives` captions are true and the others false."""

    positives: int = 1
    macro_tags: tuple[str, ...] | None = None
    """Tags that the macro figure, then the primary one, averages over. None if there is no macro figure."""
    groups: Mapping[str, Sequence[tuple[str, ...]]] = field(default_factory=dict)
    """Ids of items that are right only together, such as {"pair": [(id, id), ...]}. Each name is a further outcome."""
    group_sizes: Mapping[str, int] = field(default_factory=dict)
    """How many items a whole group has, by its name. One with fewer ids lacks images."""

    def measure(self, items: Sequence[Item], scorer: Scorer, say: Say) -> Results:
        """Compute the share of items that are right, over all and by tag. A tie is wrong, and counted.

        The chance of an item is the probability that a random order of its captions puts the true ones first; that of
        a group is the product of its items'. A share of groups is of n / 2 pairs and n / 4 sets of n items, as
        What'sUp's authors divide. So what lacks an item counts as wrong, for its part, and is counted in the
        provenance (`incomplete`).
        """
        found: dict[str, ItemOutcome] = {}
        for item, scores in zip(items, scorer.scores(items, say), strict=True):
            check_finite(scores)
            of_captions = scores[:, 0].double()
            margin = of_captions[: self.positives].min() - of_captions[self.positives :].max()
            found[item.id] = outcome_of(item, {OUTCOME: float(margin)})
        chances = {item.id: 1 / comb(len(item.captions), self.positives) for item in items}
        outcomes = list(found.values())
        incomplete = dict.fromkeys(self.groups, 0)
        for name, groups in self.groups.items():
            for ids in groups:
                if len(ids) < self.group_sizes[name] or not found.keys() >= set(ids):
                    incomplete[name] += 1
                else:
                    together = self._together(name, [found[each] for each in ids])
                    chances[together.id] = prod(chances[each] for each in ids)
                    outcomes.append(together)
        measured = {name for outcome in outcomes for name in outcome.correct}

        def whole(outcomes: Sequence[ItemOutcome], name: str) -> float | None:
            images = sum(OUTCOME in outcome.correct for outcome in outcomes)
            return images / self.group_sizes[name] if name in self.group_sizes else None

        shares = caption_scores(
            self.name,
            outcomes,
            {MICRO: OUTCOME} | {f"{name}_acc": name for name in self.groups if name in measured},
            lambda item, _: chances[item.id],
            self.macro_tags,
            whole,
        )
        return replace(shares, provenance={"incomplete": incomplete}) if incomplete else shares

    def _together(self, name: str, of: Sequence[ItemOutcome]) -> ItemOutcome:
        margin = min(item.margins[OUTCOME] for item in of)
        return ItemOutcome(
            id=f"{name} {', '.join(item.id for item in of)}",
            correct={name: margin > 0},
            margins={name: margin},
            tags=tuple(tag for tag in of[0].tags if all(tag in item.tags for item in of)),
            images=tuple(image for item in of for image in item.images),
            captions=tuple(caption for item in of for caption in item.captions[: self.positives]),
        )


def caption_scores(
    benchmark: str,
    outcomes: Sequence[ItemOutcome],
    names: dict[str, str],
    chance: Chance,
    macro_tags: tuple[str, ...] | None,
    whole: Whole = lambda *_: None,
) -> Results:
    """Return the share of each outcome, over all items and by tag, and the mean of `acc` over `macro_tags`.

    `names` is {metric name: outcome name}. The mean over tags is the primary figure; without such tags, `acc` is.
    """
    by_tag = shares_by_tag(outcomes, names, chance, whole)
    metrics: dict[str, Metric] = {}
    # A tag is missing if all of its items were left out.
    tags = tuple(tag for tag in macro_tags or () if tag in by_tag)
    if tags:
        metrics[MACRO] = mean_over_tags(by_tag, tags, MICRO)
    metrics |= {
        metric: share(outcomes, name, chance, of=whole(outcomes, name)) for metric, name in names.items()
    }
    return Results(
        benchmark=benchmark,
        primary=MACRO if tags else MICRO,
        outcome=OUTCOME,
        metrics=metrics,
        by_tag=by_tag,
        items=tuple(outcomes),
        macro_tags=tags,
    )
