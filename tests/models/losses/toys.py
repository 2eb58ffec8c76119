"""A teacher small enough to compute by hand: eps_hat = A z_t + B c, abar given."""

from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sds_clip.models.noise import Levels


@dataclass
class ToyTeacher:
    a: Float[Tensor, "p p"]
    b: Float[Tensor, "p q"]
    levels: Levels
    saw_gradients: list[bool] = field(default_factory=list)

    def add_noise(self, latents: Tensor, noise: Tensor, timesteps: Int[Tensor, "b"]) -> Tensor:
        levels = self.levels[timesteps]
        return levels.signal * latents + levels.noise * noise

    def noise_pred(self, noisy_latents: Tensor, timesteps: Tensor, captions: Tensor) -> Tensor:
        self.saw_gradients.append(noisy_latents.requires_grad)
        flat = noisy_latents.flatten(1) @ self.a.T + captions.flatten(1) @ self.b.T
        return flat.view_as(noisy_latents)


def toy_teacher(seed: int = 0) -> ToyTeacher:
    """For latents of shape 2 x 2 x 2 and captions of shape 3 x 2."""
    generator = torch.Generator().manual_seed(seed)
    return ToyTeacher(
        a=torch.randn(8, 8, generator=generator) / 2,
        b=torch.randn(8, 6, generator=generator) / 2,
        levels=Levels.of_abar(torch.tensor([0.99, 0.8, 0.5, 0.1])),
    )
