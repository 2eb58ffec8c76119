import pytest
import torch
from torch import Tensor

from bench.diffusion import best_caption
from sds_clip.models.errors import TeacherError
from sds_clip.models.teacher.diffusion_score import denoising_errors, draws
from tests.toy_teacher import SHAPE, ToyTeacher, randn


class NoisyTeacher(ToyTeacher):
    """Predicts the noise but for an error: the caption's own plus one that differs by latent and caption."""

    def noise_pred(self, noisy_latents: Tensor, timesteps: Tensor, captions: Tensor) -> Tensor:
        self.batches.append(len(noisy_latents))
        own = captions.mean(dim=(1, 2))
        wobble = 0.5 * (1e3 * noisy_latents[:, 0, 0, 0] + 1e3 * own).sin()
        # Latents are zero, so that the noise is in z_t.
        abar = self.alphas_cumprod[timesteps]
        noise = noisy_latents / (1 - abar).sqrt()[:, None, None, None]
        return noise + (own + wobble)[:, None, None, None]


def test_pruning_agrees_with_all_draws_for_a_part_of_the_calls() -> None:
    toy, agreed, calls = NoisyTeacher(), 0, 0
    latents, images = torch.zeros(SHAPE), 100
    for image in range(images):
        captions = (2 + 0.3 * randn(5, 1, 1, seed=image)).expand(5, 5, 6)
        drawn = draws(64, SHAPE, 1000, seed=image)
        errors = denoising_errors(
            toy, latents, captions, drawn.timesteps, drawn.noise, batch_size=320, error_of="epsilon"
        ).double()
        toy.batches.clear()
        best = best_caption(
            toy, latents, captions, drawn.timesteps, drawn.noise, batch_size=64, error_of="epsilon"
        )
        assert best.unet_calls == sum(toy.batches)
        agreed += best.index == int(errors.mean(dim=1).argmin())
        calls += best.unet_calls
    assert agreed >= 99
    assert calls < 0.5 * images * 5 * 64


def test_with_a_large_z_pruning_is_exhaustive() -> None:
    toy, captions, drawn = NoisyTeacher(), randn(4, 1, 1).expand(4, 5, 6), draws(20, SHAPE, 1000, seed=0)
    best = best_caption(
        toy,
        torch.zeros(SHAPE),
        captions,
        drawn.timesteps,
        drawn.noise,
        batch_size=8,
        z=float("inf"),
        error_of="velocity",
    )
    assert best.unet_calls == 4 * 20


def test_equal_captions_stay_and_the_first_wins() -> None:
    captions, drawn = torch.ones(3, 5, 6), draws(9, SHAPE, 1000, seed=0)
    best = best_caption(
        NoisyTeacher(),
        torch.zeros(SHAPE),
        captions,
        drawn.timesteps,
        drawn.noise,
        batch_size=8,
        error_of="velocity",
    )
    assert (best.index, best.unet_calls) == (0, 27)


def test_one_draw_drops_no_caption() -> None:
    captions, drawn = randn(3, 1, 1).expand(3, 5, 6), draws(2, SHAPE, 1000, seed=0)
    best = best_caption(
        NoisyTeacher(),
        torch.zeros(SHAPE),
        captions,
        drawn.timesteps[:1],
        drawn.noise[:1],
        batch_size=8,
        round_size=1,
        error_of="velocity",
    )
    assert best.unet_calls == 3


def test_errors_that_are_not_finite_are_refused() -> None:
    captions, drawn = torch.ones(3, 5, 6), draws(8, SHAPE, 1000, seed=0)
    with pytest.raises(TeacherError, match="not finite"):
        best_caption(
            ToyTeacher(),
            torch.full(SHAPE, torch.nan),
            captions,
            drawn.timesteps,
            drawn.noise,
            batch_size=8,
            error_of="velocity",
        )
