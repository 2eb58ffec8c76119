"""Which gain a comparison can show with so many seeds and items."""

from collections.abc import Iterator, Mapping

import numpy as np
from scipy.stats import chi2, norm
from scipy.stats import t as student

from sds_clip.models.recipes.plan import Plan

CHANGED = 0.2
"""The share of items that is assumed to change between a recipe and its control."""
LEVEL = 0.05
_GRID = 2000


def power(gain: float, seeds: int, items: int, deviation: float) -> float:
    """Return the probability that the test over seeds and items (`estimate`) finds a true gain, two-sided.

    The squared standard error is s^2 / seeds + c / items, where s is the gain's standard `deviation` over seeds, and
    c the share of items that change, the largest variance of an item's difference. All seeds are assumed to change
    the same items, which is the worst case. The test knows s only from the seeds, and c well. So the probability is
    averaged over what it may find for s. With one seed the error is that of the items alone, as McNemar's test has it.

    Raises ValueError if there are no items or seeds.
    """
    if seeds < 1 or items < 1:
        raise ValueError("The power needs at least one seed and one item.")
    degrees, of_seeds = (seeds - 1, deviation**2 / seeds) if seeds > 1 else (max(1, items - 1), 0.0)
    of_items = CHANGED / items
    found = chi2.ppf((np.arange(_GRID) + 0.5) / _GRID, degrees) / degrees
    limit = student.ppf(1 - LEVEL / 2, degrees) * np.sqrt(of_items + of_seeds * found)
    spread = (of_items + of_seeds) ** 0.5
    return float(np.mean(norm.sf((limit - gain) / spread) + norm.cdf((-limit - gain) / spread)))


def seeds_needed(gain: float, items: int, deviation: float) -> int | None:
    """Return the fewest seeds, 2 to 64, by which a gain is found with probability 0.8, or None if 64 are too few."""
    return next((seeds for seeds in range(2, 65) if power(gain, seeds, items, deviation) >= 0.8), None)


def describe_power(plan: Plan, items: Mapping[str, int]) -> Iterator[str]:
    """Say which gain of the plan's primary benchmark would be found. `items` has each benchmark's number of items."""
    count, seeds = items.get(plan.primary, 0), len(plan.seeds)
    if not count:
        return
    found = power(plan.gain, seeds, count, plan.seed_deviation)
    needed = seeds_needed(plan.gain, count, plan.seed_deviation)
    yield (
        f"Power: if a recipe gains {plan.gain:.1%} over {plan.control} on the {count} items of {plan.primary}, "
        f"{seeds} {'seed finds' if seeds == 1 else 'seeds find'} it (p below 0.05, for one recipe) with probability "
        f"{found:.0%}, assuming that {CHANGED:.0%} of the items change, the same with every seed, and that the "
        f"gain varies over seeds by {plan.seed_deviation:.1%}. "
        + (
            f"For 80 %, take {needed} seeds."
            if needed
            else "More than 64 seeds would be needed for 80 %; take more items."
        )
    )
