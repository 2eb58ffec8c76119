"""w(t): the weight of a timestep in a teacher's loss."""

from typing import get_args

import torch

from sds_clip.models.choices import Weighting
from sds_clip.models.errors import LossError
from sds_clip.models.shapes import PerSample

WEIGHTINGS: tuple[str, ...] = get_args(Weighting)


def weight(name: str, abar: PerSample, *, gamma: float = 5.0) -> PerSample:
    """Return w(t) of each sample, from its abar = alphas_cumprod[t].

    - `uniform`: 1, the formula as written in arXiv 2307.09233.
    - `one-minus-abar`: 1 - abar = sigma_t^2, as in DreamFusion's implementations (arXiv 2209.14988).
    - `sqrt-abar`: sqrt(abar) (1 - abar).
    - `min-snr`: min(snr, gamma) / snr with snr = abar / (1 - abar), for a loss on the noise
      (arXiv 2303.09556, section 3.4): 1 where snr is at most gamma, so 1 at abar = 0.

    Raises LossError for another name, and for a gamma that is not positive.
    """
    match name:
        case "uniform":
            return torch.ones_like(abar)
        case "one-minus-abar":
            return 1 - abar
        case "sqrt-abar":
            return abar.sqrt() * (1 - abar)
        case "min-snr":
            if not gamma > 0:
                raise LossError(f"min-snr's gamma is {gamma}; it must be positive (5 is usual).")
            # min(1, gamma / snr), written without a division by 1 - abar.
            return (gamma * (1 - abar) / abar).clamp(max=1)
    raise LossError(f"The weighting cannot be {name!r}; use {', '.join(WEIGHTINGS)}.")
