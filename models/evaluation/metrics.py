"""Turn outcomes into metrics: shares with 95 % intervals in closed form, over all items and by tag."""

from collections.abc import Callable, Iterable, Sequence
from math import ceil, fsum, sqrt

from sds_clip.models.errors import EvaluationError
from sds_clip.models.evaluation.results import ItemOutcome, Metric

Z = 1.959963984540054
"""The 97.5 % point of the normal distribution, for 95 % intervals."""

Chance = Callable[[ItemOutcome, str], float]
"""Returns the probability that random scores get an item's outcome of this name right."""

Whole = Callable[[Sequence[ItemOutcome], str], float | None]
"""Returns of how many an outcome's share among these items is, or None if it is one of those that have the outcome."""


def share(outcomes: Iterable[ItemOutcome], name: str, chance: Chance, *, of: float | None = None) -> Metric:
    """Return the share of right items among those with this outcome, its chance, and the number of ties.

    If it is a share of more than these, `of` says of how many. `n` is then rounded up.
    A tie is an item whose margin is 0, so that it would be right if equal scores were enough. It counts as wrong.

    Raises:
        EvaluationError: no item has it.
    """
    right = n = ties = 0
    chances: list[float] = []
    for item in outcomes:
        if name in item.correct:
            n += 1
            right += item.correct[name]
            ties += item.margins[name] == 0
            chances.append(chance(item, name))
    if n == 0:
        raise EvaluationError(f"There are no items to compute {name} from.")
    whole: int | float = n if of is None else of
    low, high = wilson(right, whole)
    return Metric(right / whole, low, high, ceil(whole), ties, fsum(chances) / whole, name)


def mean_over_tags(by_tag: dict[str, dict[str, Metric]], tags: Sequence[str], name: str) -> Metric:
    """Return the plain mean of a metric over tags. Within a tag all items count alike."""
    of = [by_tag[tag][name] for tag in tags]
    value, low, high = mean_of_shares([(round(metric.value * metric.n), metric.n) for metric in of])
    chances = [metric.chance for metric in of if metric.chance is not None]
    chance = sum(chances) / len(chances) if len(chances) == len(of) else None
    return Metric(value, low, high, sum(metric.n for metric in of), sum(metric.ties for metric in of), chance)


def shares_by_tag(
    outcomes: Sequence[ItemOutcome], names: dict[str, str], chance: Chance, whole: Whole = lambda *_: None
) -> dict[str, dict[str, Metric]]:
    """Return each tag's share of each outcome. `names` is {metric name: outcome name}."""
    return {
        tag: {
            metric: share(items, name, chance, of=whole(items, name))
            for metric, name in names.items()
            if any(name in item.correct for item in items)
        }
        for tag, items in grouped_by_tag(outcomes).items()
    }


def grouped_by_tag(outcomes: Iterable[ItemOutcome]) -> dict[str, list[ItemOutcome]]:
    """Return the items of every tag, with tags in alphabetical order."""
    grouped: dict[str, list[ItemOutcome]] = {}
    for item in outcomes:
        for tag in dict.fromkeys(item.tags):
            grouped.setdefault(tag, []).append(item)
    return {tag: grouped[tag] for tag in sorted(grouped)}


def wilson(right: int, n: int | float) -> tuple[float, float]:
    """Return Wilson's score interval of right / n (1927). It is within [0, 1], and not empty at 0 or n.

    centre = (p + z^2 / 2n) / (1 + z^2 / n), half = z / (1 + z^2 / n) sqrt(p (1 - p) / n + z^2 / 4n^2)

    SciPy's `binomtest` differs from it in the last bit of some ends, so the results of a run would be another file
    than before (decision 13). Raises ValueError unless 0 <= right <= n and n > 0.
    """
    if not 0 <= right <= n or n == 0:
        raise ValueError(f"{right} of {n} is not a share")
    p = right / n
    shrink = 1 + Z**2 / n
    centre = (p + Z**2 / (2 * n)) / shrink
    half = Z / shrink * sqrt(p * (1 - p) / n + Z**2 / (4 * n**2))
    # At the ends the formula gives 0 and 1 up to rounding.
    return (0.0 if right == 0 else centre - half), (1.0 if right == n else centre + half)


def mean_of_shares(shares: Sequence[tuple[int, int]]) -> tuple[float, float, float]:
    """Return the plain mean of independent shares (right, n), and its MOVER interval (Zou and Donner 2008).

    low = m - sqrt(sum (p_k - l_k)^2) / K, high = m + sqrt(sum (u_k - p_k)^2) / K, with Wilson's l_k and u_k.
    For a single share it is Wilson's interval. Unlike a bootstrap, it does not treat a share of 3 in 3 as
    certain.

    Raises ValueError if there are none.
    """
    if not shares:
        raise ValueError("there are no shares to average")
    points = [right / n for right, n in shares]
    ends = [wilson(right, n) for right, n in shares]
    mean = sum(points) / len(points)
    below = sqrt(sum((point - low) ** 2 for point, (low, _) in zip(points, ends, strict=True)))
    above = sqrt(sum((high - point) ** 2 for point, (_, high) in zip(points, ends, strict=True)))
    return mean, max(0.0, mean - below / len(points)), min(1.0, mean + above / len(points))
