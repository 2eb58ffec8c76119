"""95 % intervals of shares, in closed form."""

from collections.abc import Sequence
from math import sqrt

Z = 1.959963984540054
"""The normal distribution's 97.5 % point."""


def wilson(right: int, n: int) -> tuple[float, float]:
    """Wilson's score interval of right / n (1927); within [0, 1], and not empty at 0 or n.

    centre = (p + z^2 / 2n) / (1 + z^2 / n), half = z / (1 + z^2 / n) sqrt(p (1 - p) / n + z^2 / 4n^2)

    Raises ValueError unless 0 <= right <= n and n > 0.
    """
    if not 0 <= right <= n or n == 0:
        raise ValueError(f"{right} of {n} is not a share")
    p = right / n
    shrink = 1 + Z**2 / n
    centre = (p + Z**2 / (2 * n)) / shrink
    half = Z / shrink * sqrt(p * (1 - p) / n + Z**2 / (4 * n**2))
    # At the ends the formula gives 0 and 1 but for rounding.
    return (0.0 if right == 0 else centre - half), (1.0 if right == n else centre + half)


def mean_of_shares(shares: Sequence[tuple[int, int]]) -> tuple[float, float, float]:
    """The plain mean of independent shares (right, n), and its interval from theirs (MOVER, Zou and Donner 2008).

    low = m - sqrt(sum (p_k - l_k)^2) / K, high = m + sqrt(sum (u_k - p_k)^2) / K, with Wilson's l_k and u_k. Of one
    share it is Wilson's interval; unlike a bootstrap it does not take a share of 3 in 3 for certain.

    Raises ValueError where there are none.
    """
    if not shares:
        raise ValueError("there are no shares to average")
    points = [right / n for right, n in shares]
    ends = [wilson(right, n) for right, n in shares]
    mean = sum(points) / len(points)
    below = sqrt(sum((point - low) ** 2 for point, (low, _) in zip(points, ends, strict=True)))
    above = sqrt(sum((high - point) ** 2 for point, (_, high) in zip(points, ends, strict=True)))
    return mean, max(0.0, mean - below / len(points)), min(1.0, mean + above / len(points))
