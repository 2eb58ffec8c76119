"""A mean over items and over runs that are a sample themselves, such as seeds or base students."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float


@dataclass(frozen=True)
class Interval:
    """A mean, and its interval."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Estimate:
    """A mean over samples, their repeats, and items; see `estimate`."""

    mean: float
    standard_error: float
    degrees_of_freedom: int

    @property
    def p(self) -> float:
        """Two-sided, for no difference."""
        from scipy.stats import t as student

        if self.standard_error == 0:
            return float(self.mean == 0)
        return float(2 * student.sf(abs(self.mean) / self.standard_error, self.degrees_of_freedom))

    def interval(self, level: float = 0.95) -> Interval:
        from scipy.stats import t as student

        half = student.ppf((1 + level) / 2, self.degrees_of_freedom) * self.standard_error
        return Interval(self.mean, float(self.mean - half), float(self.mean + half))


def estimate(values: Float[np.ndarray, "samples repeats items"]) -> Estimate:
    """Estimate the mean of scores or paired differences that should hold for other samples and other items.

    The squared standard error is the sum of that over the samples' means and that over the items' means. It counts the
    noise that is of both twice, so it is rather too large. With one item, as for a share, there is only the first. The
    degrees of freedom are those of the samples: Welch and Satterthwaite's are too many where a few samples agree by
    chance.

    Raises:
        ValueError: there are fewer than two samples.
    """
    samples, _, items = values.shape
    if samples < 2:
        raise ValueError("A standard error needs at least two samples.")
    means = [values.mean(axis=(1, 2))]
    if items > 1:
        means.append(values.mean(axis=(0, 1)))
    squared = sum(each.var(ddof=1) / len(each) for each in means)
    return Estimate(float(values.mean()), float(squared**0.5), samples - 1)
