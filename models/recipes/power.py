"""Which gain a comparison can show with so many seeds and items."""

from scipy.stats import nct
from scipy.stats import t as student

CHANGED = 0.2
"""The share of items that is assumed to change between a recipe and its control."""
LEVEL = 0.05


def power(gain: float, seeds: int, items: int, deviation: float) -> float:
    """Return the probability that the test over seeds and items (`estimate`) finds a true gain, two-sided.

    The squared standard error is s^2 / seeds + c / items, where s is the gain's standard `deviation` over seeds, and
    c the share of items that change, the largest variance of an item's difference. With one seed it is that of the
    items alone, as McNemar's test has it.

    Raises ValueError if there are no items or seeds.
    """
    if seeds < 1 or items < 1:
        raise ValueError("The power needs at least one seed and one item.")
    squared = CHANGED / items + (deviation**2 / seeds if seeds > 1 else 0.0)
    degrees = seeds - 1 if seeds > 1 else max(1, items - 1)
    limit, shift = student.ppf(1 - LEVEL / 2, degrees), gain / squared**0.5
    return float(nct.sf(limit, degrees, shift) + nct.cdf(-limit, degrees, shift))


def seeds_needed(gain: float, items: int, deviation: float) -> int | None:
    """Return the fewest seeds, 2 to 64, by which a gain is found with probability 0.8, or None if 64 are too few."""
    return next((seeds for seeds in range(2, 65) if power(gain, seeds, items, deviation) >= 0.8), None)
