"""The shapes of what a diffusion model takes and gives, as jaxtyping's names, which tests check. b is the batch."""

from jaxtyping import Float, Int
from torch import Tensor

Maps = Float[Tensor, "b c h w"]
"""Latents, their noise, or what is predicted of either."""
Tokens = Float[Tensor, "b s e"]
"""The encodings of captions, or what stands in their place."""
Timesteps = Int[Tensor, "b"]
PerSample = Float[Tensor, "b"]
