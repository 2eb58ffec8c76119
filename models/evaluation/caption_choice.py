"""Benchmarks that choose an image's captions: every true one must score strictly above every false one."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import permutations, product
from math import comb, factorial, fsum, prod

from sds_clip.models.blind import Choice, blind_accuracy
from sds_clip.models.evaluation.benchmark import Benchmark, check_finite, outcome_of
from sds_clip.models.evaluation.image_check import Say
from sds_clip.models.evaluation.items import Item
from sds_clip.models.evaluation.metrics import Chance, Whole, mean_over_tags, share, shares_by_tag
from sds_clip.models.evaluation.results import ItemOutcome, Metric, Results
from sds_clip.models.evaluation.scorers import Scorer

OUTCOME = "text"
_MATCH = "_match"
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
        provenance (`incomplete`). A group's `_match` is GroupMatch, whose chance is 1 / k! for its k images.
        """
        found: dict[str, ItemOutcome] = {}
        by_text: dict[str, dict[str, float]] = {}
        for item, scores in zip(items, scorer.scores(items, say), strict=True):
            check_finite(scores)
            of_captions = scores[:, 0].double()
            margin = of_captions[: self.positives].min() - of_captions[self.positives :].max()
            found[item.id] = outcome_of(item, {OUTCOME: float(margin)})
            by_text[item.id] = dict(zip(item.captions, of_captions.tolist(), strict=True))
        chances = {item.id: 1 / comb(len(item.captions), self.positives) for item in items}
        outcomes = list(found.values())
        incomplete = dict.fromkeys(self.groups, 0)
        for name, groups in self.groups.items():
            for ids in groups:
                if len(ids) < self.group_sizes[name] or not found.keys() >= set(ids):
                    incomplete[name] += 1
                else:
                    together = self._together(
                        name, [found[each] for each in ids], [by_text[each] for each in ids]
                    )
                    chances[together.id] = prod(chances[each] for each in ids)
                    outcomes.append(together)
        measured = {name for outcome in outcomes for name in outcome.correct} - {OUTCOME}

        def whole(outcomes: Sequence[ItemOutcome], name: str) -> float | None:
            images = sum(OUTCOME in outcome.correct for outcome in outcomes)
            size = self.group_sizes.get(name.removesuffix(_MATCH))
            return images / size if size else None

        def chance(item: ItemOutcome, name: str) -> float:
            return 1 / factorial(len(item.images)) if name.endswith(_MATCH) else chances[item.id]

        shares = caption_scores(
            self.name,
            outcomes,
            {MICRO: OUTCOME} | {name if _MATCH in name else f"{name}_acc": name for name in sorted(measured)},
            chance,
            self.macro_tags,
            whole,
        )
        counted = {"incomplete": incomplete} if incomplete else {}
        return replace(shares, provenance={"text_only": self._text_only(items), **counted})

    def _text_only(self, items: Sequence[Item]) -> dict[str, dict[str, int | float]]:
        """How often a reader of the texts alone finds the true caption, over all items and by tag. Chance is 0.5."""
        choices: dict[str, list[Choice]] = {}
        for item in items:
            true, false = item.captions[: self.positives], item.captions[self.positives :]
            of_item = [Choice(str(item.images[0]), *texts) for texts in product(true, false)]
            for tag in ("all", *item.tags):
                choices.setdefault(tag, []).extend(of_item)
        return {tag: blind_accuracy(of_tag)._asdict() for tag, of_tag in choices.items()}

    def _together(
        self, name: str, of: Sequence[ItemOutcome], by_text: Sequence[Mapping[str, float]]
    ) -> ItemOutcome:
        margins = {name: min(item.margins[OUTCOME] for item in of)}
        own = [item.captions[0] for item in of]
        if all(scores.keys() >= set(own) for scores in by_text):
            margins[name + _MATCH] = match_margin([[scores[text] for text in own] for scores in by_text])
        together = Item(
            id=f"{name} {', '.join(item.id for item in of)}",
            images=tuple(image for item in of for image in item.images),
            captions=tuple(caption for item in of for caption in item.captions[: self.positives]),
            tags=tuple(tag for tag in of[0].tags if all(tag in item.tags for item in of)),
        )
        return outcome_of(together, margins)


def match_margin(scores: Sequence[Sequence[float]]) -> float:
    """Return how far k images and their captions are ahead of any other assignment (GroupMatch, arXiv 2510.07632).

    It is sum_i s_ii less the highest sum_i s_i,p(i) over the other permutations p, of scores[image][caption].
    """
    own, *others = (
        fsum(scores[image][text] for image, text in enumerate(order))
        for order in permutations(range(len(scores)))
    )
    return own - max(others)


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
