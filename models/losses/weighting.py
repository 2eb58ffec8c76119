"""w(t): the weight of a timestep in a teacher's loss."""

from typing import get_args

import torch

from sds_clip.models.choices import Weighting
from sds_clip.models.errors import LossError
from sds_clip.models.noise import Levels
from sds_clip.models.shapes import PerSample

WEIGHTINGS: tuple[str, ...] = get_args(Weighting)


def weight(name: str, levels: Levels, *, gamma: float = 5.0) -> PerSample:
    """Return w(t) of each sample, for a loss on the noise.

    If variance is preserved, s^2 is abar and n^2 is 1 - abar. In a flow they are (1 - sigma)^2 and sigma^2. On
    the error of a velocity, which is that of the noise over s^2, the weight is s^2 w(t).

    - `uniform`: 1, the formula as written in arXiv 2307.09233.
    - `one-minus-abar`: n^2, as in DreamFusion's implementations (arXiv 2209.14988).
    - `sqrt-abar`: s n^2.
    - `min-snr`: min(snr, gamma) / snr with snr = s^2 / n^2 (arXiv 2303.09556, section 3.4): 1 where snr is at most
      gamma, so 1 at s = 0.

    Raises LossError for another name, and for a gamma that is not positive.
    """
    abar, rest = levels.signal_power, levels.noise_power
    match name:
        case "uniform":
            return torch.ones_like(abar)
        case "one-minus-abar":
            return rest
        case "sqrt-abar":
            return abar.sqrt() * rest
        case "min-snr":
            if not gamma > 0:
                raise LossError(f"min-snr's gamma is {gamma}; it must be positive (5 is usual).")
            # min(1, gamma / snr), written without a division by n^2.
            return (gamma * rest / abar).clamp(max=1)
    raise LossError(f"The weighting cannot be {name!r}; use {', '.join(WEIGHTINGS)}.")
