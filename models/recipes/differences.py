"""Paired differences of a recipe and its control, or the base, over seeds and items."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any

import numpy as np
from jaxtyping import Float

from sds_clip.models.evaluation.comparison import compare
from sds_clip.models.evaluation.estimate import estimate
from sds_clip.models.evaluation.results import GROUP_MATCH, Results
from sds_clip.models.evaluation.retrieval import IMAGE_RETRIEVAL, TEXT_RETRIEVAL
from sds_clip.models.recipes.arms import Arms
from sds_clip.models.recipes.plan import BASE

_OF_RETRIEVAL = (f"{IMAGE_RETRIEVAL}@1", f"{TEXT_RETRIEVAL}@1")


@dataclass(frozen=True)
class Difference:
    """A recipe minus another model in a figure: shares, their mean difference over seeds, and its 95 % interval.

    With one seed, the interval is a paired bootstrap over the items, and p is McNemar's exact test, two-sided; a mean
    over tags has no p. With several, both are Student's t over seeds and items (`sds_clip.models.evaluation.estimate`).
    `holm` is p by Holm's method over the recipes that are compared with the same model in the same figure.
    """

    value: float
    mean: float
    low: float
    high: float
    p: float | None
    holm: float | None = None


@dataclass(frozen=True)
class Line:
    """A recipe in a figure of a benchmark: the mean over seeds, and the differences from the control and the base."""

    benchmark: str
    figure: str
    items: int
    chance: float | None
    model: str
    value: float
    by_seed: tuple[float, ...]
    over_control: Difference | None = None
    over_base: Difference | None = None


def lines(arms: Arms) -> list[Line]:
    """Return a line for each figure that is compared and each model, in the order of the plan.

    A benchmark's first figure is GroupMatch where it has that, since a group score below its chance rises by noise
    alone. Then come its own primary figure, and both directions of retrieval.

    Raises EvaluationError if results are damaged or are of different items.
    """
    return [line for benchmark in arms.plan.benchmarks for line in _of_benchmark(arms, benchmark)]


def _of_benchmark(arms: Arms, benchmark: str) -> Iterator[Line]:
    plan = arms.plan
    found = {model: arms.results(benchmark, model) for model in arms.models}
    results = {model: each for model, each in found.items() if each is not None}
    base = results[BASE]
    runs = {recipe: [results[f"{recipe}-{seed}"] for seed in plan.seeds] for recipe in plan.recipes}
    compared = [GROUP_MATCH, base.primary, *_OF_RETRIEVAL]
    for figure in dict.fromkeys(name for name in compared if name in base.metrics):
        over_control, over_base = (
            _corrected(
                {recipe: _difference(of, others, figure) for recipe, of in runs.items() if of is not others}
            )
            for others in (runs[plan.control], [base] * len(plan.seeds))
        )
        metric = base.metrics[figure]
        singles = {BASE: [base], **{name: [results[name]] for name in plan.also}}
        for model, of in {**singles, **runs}.items():
            values = tuple(each.metrics[figure].value for each in of)
            yield Line(
                benchmark, figure, metric.n, metric.chance, model, fmean(values), values,
                over_control.get(model), over_base.get(model),
            )  # fmt: skip


def _difference(models: Sequence[Results], others: Sequence[Results], figure: str) -> Difference:
    values = [each.metrics[figure].value for each in models]
    mean = fmean(values) - fmean(each.metrics[figure].value for each in others)
    if len(models) > 1:
        found = estimate(_paired(models, others, figure)[:, None])
        interval = found.interval()
        return Difference(fmean(values), mean, max(interval.low, -1.0), min(interval.high, 1.0), found.p)
    compared = compare(others[0], models[0])
    outcome = models[0].metrics[figure].outcome
    if outcome is None:  # a mean over tags
        assert compared.macro is not None
        return Difference(values[0], mean, compared.macro.low, compared.macro.high, None)
    of = compared.outcomes[outcome]
    return Difference(values[0], mean, of.low, of.high, of.p_two_sided)


def _paired(
    models: Sequence[Results], others: Sequence[Results], figure: str
) -> Float[np.ndarray, "seeds items"]:
    """The differences of each seed's items, weighted so that their mean is that of the figure."""
    weights = _weights(models[0], figure)
    order = list(weights)
    rows = []
    for model, other in zip(models, others, strict=True):
        outcome = model.metrics[figure].outcome or model.outcome
        after, before = (
            {item.id: item.correct[outcome] for item in each.items if outcome in item.correct}
            for each in (model, other)
        )
        rows.append([weights[id] * (float(after[id]) - float(before[id])) for id in order])
    return np.array(rows)


def _weights(results: Results, figure: str) -> dict[str, float]:
    """The weight of each item in a figure, 1 on average: 1 for each in a share, and by tag in a mean over tags."""
    outcome = results.metrics[figure].outcome
    if outcome is not None:
        return {item.id: 1.0 for item in results.items if outcome in item.correct}
    tags = set(results.macro_tags)
    counted = {
        item.id: tags.intersection(item.tags) for item in results.items if results.outcome in item.correct
    }
    sizes = Counter(tag for own in counted.values() for tag in own)
    return {id: len(counted) * sum(1 / sizes[tag] for tag in own) / len(tags) for id, own in counted.items()}


def _corrected(found: dict[str, Difference]) -> dict[str, Difference]:
    """Add Holm's p (1979): the k-th smallest of n times n - k + 1, at least as large as those before it, at most 1."""
    tested = sorted(
        (name for name in found if found[name].p is not None), key=lambda name: found[name].p or 0.0
    )
    holm, least = {}, 0.0
    for place, name in enumerate(tested):
        least = max(least, min(1.0, (len(tested) - place) * (found[name].p or 0.0)))
        holm[name] = least
    return {name: replace(of, holm=holm.get(name)) for name, of in found.items()}


def every_figure(arms: Arms) -> Iterator[list[Any]]:
    """Yield each figure of each model over all items, and its primary outcome and GroupMatch by tag, in percent."""
    for benchmark in arms.plan.benchmarks:
        for model in arms.models:
            results = arms.results(benchmark, model)
            assert results is not None
            shown = {results.outcome, GROUP_MATCH}
            for tag, metrics in {"": results.metrics, **results.by_tag}.items():
                for name, of in metrics.items():
                    if not tag or of.outcome in shown:
                        shares = [
                            None if each is None else 100 * each
                            for each in (of.chance, of.value, of.low, of.high)
                        ]
                        yield [benchmark, name, tag, of.n, shares[0], model, *shares[1:]]
