from typing import get_args

import pytest
import torch
from diffusers import DDIMScheduler

from sds_clip.models.teacher.noise import PredictionType, add_noise, epsilon_of

TIMESTEPS = torch.tensor([0, 1, 250, 999])


def scheduler(prediction_type: str, **settings: object) -> DDIMScheduler:
    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type=prediction_type,
        clip_sample=False,
        **settings,
    )


def latents_and_noise() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    latents, noise = torch.randn(2, len(TIMESTEPS), 4, 8, 8, generator=generator)
    return latents, noise


def test_noise_is_added_as_the_scheduler_adds_it() -> None:
    latents, noise = latents_and_noise()
    own = scheduler("epsilon")
    torch.testing.assert_close(
        add_noise(latents, noise, own.alphas_cumprod[TIMESTEPS]),
        own.add_noise(latents, noise, TIMESTEPS),
        rtol=0,
        atol=1e-6,
    )


@pytest.mark.parametrize("prediction_type", get_args(PredictionType))
def test_epsilon_leads_to_the_scheduler_s_own_clean_latents(prediction_type: PredictionType) -> None:
    noisy, output = latents_and_noise()
    own = scheduler(prediction_type)
    own.set_timesteps(1000)
    abar = own.alphas_cumprod[TIMESTEPS]
    noise_pred = epsilon_of(output, noisy, abar, prediction_type)
    for row, t in enumerate(TIMESTEPS):
        expected = own.step(output[row : row + 1], t, noisy[row : row + 1]).pred_original_sample[0]
        clean = (noisy[row] - (1 - abar[row]).sqrt() * noise_pred[row]) / abar[row].sqrt()
        torch.testing.assert_close(clean, expected, rtol=1e-4, atol=1e-5)


def test_the_true_velocity_is_the_true_noise() -> None:
    latents, noise = latents_and_noise()
    own = scheduler("v_prediction")
    abar = own.alphas_cumprod[TIMESTEPS]
    velocity = own.get_velocity(latents, noise, TIMESTEPS)
    noise_pred = epsilon_of(velocity, add_noise(latents, noise, abar), abar, "v_prediction")
    torch.testing.assert_close(noise_pred, noise, rtol=0, atol=1e-5)
    assert torch.equal(epsilon_of(noise, latents, abar, "epsilon"), noise)


@pytest.mark.parametrize("prediction_type", get_args(PredictionType))
def test_pure_noise_at_the_schedule_s_end_gives_finite_values_and_gradients(
    prediction_type: PredictionType,
) -> None:
    abar = scheduler(prediction_type, rescale_betas_zero_snr=True).alphas_cumprod[TIMESTEPS]
    assert abar[-1] == 0
    latents, noise = latents_and_noise()
    latents.requires_grad_()
    noisy = add_noise(latents, noise, abar)
    noise_pred = epsilon_of(noise + noisy, noisy, abar, prediction_type)
    noise_pred.sum().backward()
    assert torch.equal(noisy[-1], noise[-1])
    assert noise_pred.isfinite().all()
    assert latents.grad is not None
    assert latents.grad.isfinite().all()
