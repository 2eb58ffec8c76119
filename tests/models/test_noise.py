"""The noise arithmetic, against diffusers' schedulers, against numpy's solution of two equations, and to the bit."""

from itertools import product
from typing import get_args

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, FlowMatchEulerDiscreteScheduler
from torch import Tensor

from sds_clip.models.noise import Levels, PredictionType, add_noise, convert, noise_offset, target

TIMESTEPS = torch.tensor([0, 1, 250, 999])
KINDS: tuple[PredictionType, ...] = get_args(PredictionType)
SIGMAS = torch.tensor([0.003, 0.25, 0.5, 0.9], dtype=torch.float64)
VELOCITIES: tuple[PredictionType, ...] = ("v_prediction", "flow_prediction")


def scheduler(prediction_type: str, **settings: object) -> DDIMScheduler:
    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type=prediction_type,
        clip_sample=False,
        **settings,
    )


def latents_and_noise(dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    latents, noise = torch.randn(2, len(TIMESTEPS), 4, 8, 8, generator=generator).to(dtype)
    return latents, noise


def levels_of(schedule: str) -> Levels:
    return Levels.of_flow(SIGMAS) if schedule == "flow" else Levels.of_abar(1 - SIGMAS)


def test_noise_is_added_as_the_scheduler_adds_it() -> None:
    latents, noise = latents_and_noise()
    own = scheduler("epsilon")
    found = add_noise(latents, noise, Levels.of_abar(own.alphas_cumprod)[TIMESTEPS])
    torch.testing.assert_close(found, own.add_noise(latents, noise, TIMESTEPS), rtol=0, atol=1e-6)


def test_noise_of_a_flow_is_added_as_the_scheduler_adds_it() -> None:
    latents, noise = latents_and_noise()
    own = FlowMatchEulerDiscreteScheduler(shift=3.0)
    found = add_noise(latents, noise, Levels.of_flow(own.sigmas.flip(0)[TIMESTEPS]))
    expected = own.scale_noise(latents, own.timesteps.flip(0)[TIMESTEPS], noise)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("schedule", ["variance-preserving", "flow"])
@pytest.mark.parametrize(("given", "wanted"), [*product(KINDS, KINDS)])
def test_every_kind_leads_to_every_other_as_numpy_solves_it(
    given: PredictionType, wanted: PredictionType, schedule: str
) -> None:
    levels = levels_of(schedule)
    output, noisy = latents_and_noise(torch.float64)
    found = convert(output, noisy, levels, given, wanted)
    for row, sigma in enumerate(SIGMAS.numpy()):
        s, n = (1 - sigma, sigma) if schedule == "flow" else ((1 - sigma) ** 0.5, sigma**0.5)
        meaning = {"epsilon": (0, 1), "sample": (1, 0), "v_prediction": (-n, s), "flow_prediction": (-1, 1)}
        equations = np.array([[s, n], meaning[given]])
        known = np.stack([noisy[row].numpy().ravel(), output[row].numpy().ravel()])
        expected = np.array(meaning[wanted]) @ np.linalg.solve(equations, known)
        np.testing.assert_allclose(found[row].numpy().ravel(), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("schedule", ["variance-preserving", "flow"])
@pytest.mark.parametrize(("given", "wanted"), [*product(KINDS, KINDS)])
def test_true_predictions_lead_to_true_ones(
    given: PredictionType, wanted: PredictionType, schedule: str
) -> None:
    levels = levels_of(schedule)
    latents, noise = latents_and_noise(torch.float64)
    noisy = add_noise(latents, noise, levels)
    found = convert(target(latents, noise, levels, given), noisy, levels, given, wanted)
    torch.testing.assert_close(found, target(latents, noise, levels, wanted), rtol=1e-9, atol=1e-9)


def test_a_flow_by_hand() -> None:
    """sigma = 0.25, z_0 = 2, eps = -1: z_t = 0.75 * 2 - 0.25 = 1.25, and the flow is -1 - 2 = -3."""
    levels = Levels.of_flow(torch.tensor([0.25]))
    latents, noise = torch.full((1, 1, 1, 1), 2.0), torch.full((1, 1, 1, 1), -1.0)
    noisy, flow = add_noise(latents, noise, levels), target(latents, noise, levels, "flow_prediction")
    assert (noisy.item(), flow.item()) == (1.25, -3.0)
    assert convert(flow, noisy, levels, "flow_prediction", "epsilon").item() == 1.25 + 0.75 * -3.0 == -1.0
    assert convert(flow, noisy, levels, "flow_prediction", "sample").item() == 1.25 - 0.25 * -3.0 == 2.0
    assert target(latents, noise, levels, "v_prediction").item() == 0.75 * -1 - 0.25 * 2


def test_a_flow_that_is_taken_for_a_velocity_is_wrong() -> None:
    levels = Levels.of_flow(SIGMAS)
    latents, noise = latents_and_noise(torch.float64)
    noisy, flow = add_noise(latents, noise, levels), target(latents, noise, levels, "flow_prediction")
    found = convert(flow, noisy, levels, "v_prediction", "epsilon")
    assert ((found - noise).square().mean(dim=(1, 2, 3)) > 1e-3).all()
    # The formula of a variance-preserving schedule, s v + n z_t, is wrong too.
    renamed = levels.signal * flow + levels.noise * noisy
    assert ((renamed - noise).square().mean(dim=(1, 2, 3)) > 1e-3).all()


@pytest.mark.parametrize("zero_snr", [False, True])
def test_variance_preserving_results_are_those_of_their_own_formulas_to_the_bit(zero_snr: bool) -> None:
    own = scheduler("epsilon", rescale_betas_zero_snr=zero_snr)
    abar = own.alphas_cumprod.float()
    assert torch.equal(abar + (1 - abar), torch.ones_like(abar))
    timesteps = torch.arange(0, 1000, 7)
    generator = torch.Generator().manual_seed(1)
    latents, noise = torch.randn(2, len(timesteps), 2, 4, 4, generator=generator)
    levels = Levels.of_abar(abar)[timesteps]
    signal, disturbance = (each[:, None, None, None] for each in (abar.sqrt(), (1 - abar).sqrt()))
    s, n = signal[timesteps], disturbance[timesteps]
    noisy = s * latents + n * noise
    assert torch.equal(add_noise(latents, noise, levels), noisy)
    velocity = s * noise - n * latents
    assert torch.equal(target(latents, noise, levels, "v_prediction"), velocity)
    assert torch.equal(convert(velocity, noisy, levels, "v_prediction", "epsilon"), s * velocity + n * noisy)
    assert convert(noise, noisy, levels, "epsilon", "epsilon") is noise
    assert torch.equal(noise_offset(noisy, levels), n * noisy)


@pytest.mark.parametrize("velocity", VELOCITIES)
def test_noise_without_its_offset_is_the_velocity_times_the_signal(velocity: PredictionType) -> None:
    levels = levels_of("flow" if velocity == "flow_prediction" else "variance-preserving")
    latents, noise = latents_and_noise(torch.float64)
    found = noise - noise_offset(add_noise(latents, noise, levels), levels)
    torch.testing.assert_close(found, levels.signal * target(latents, noise, levels, velocity))


@pytest.mark.parametrize("prediction_type", ["epsilon", "sample", "v_prediction"])
def test_epsilon_leads_to_the_scheduler_s_own_clean_latents(prediction_type: PredictionType) -> None:
    noisy, output = latents_and_noise()
    own = scheduler(prediction_type)
    own.set_timesteps(1000)
    levels = Levels.of_abar(own.alphas_cumprod)[TIMESTEPS]
    clean = convert(output, noisy, levels, prediction_type, "sample")
    for row, t in enumerate(TIMESTEPS):
        expected = own.step(output[row : row + 1], t, noisy[row : row + 1]).pred_original_sample[0]
        torch.testing.assert_close(clean[row], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("prediction_type", ["epsilon", *VELOCITIES])
def test_pure_noise_at_the_schedule_s_end_gives_finite_values_and_gradients(
    prediction_type: PredictionType,
) -> None:
    own = scheduler("epsilon", rescale_betas_zero_snr=True)
    levels = Levels.of_abar(own.alphas_cumprod)[TIMESTEPS]
    if prediction_type == "flow_prediction":
        levels = Levels.of_flow(torch.tensor([0.001, 0.002, 0.25, 1.0]))
    assert levels.signal_power[-1] == 0
    latents, noise = latents_and_noise()
    latents.requires_grad_()
    noisy = add_noise(latents, noise, levels)
    noise_pred = convert(noise + noisy, noisy, levels, prediction_type, "epsilon")
    noise_pred.sum().backward()
    assert torch.equal(noisy[-1], noise[-1])
    assert noise_pred.isfinite().all()
    assert latents.grad is not None
    assert latents.grad.isfinite().all()
