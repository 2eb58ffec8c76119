import inspect

import numpy as np
import pytest
import torch
from torch import Tensor

from sds_clip.models.errors import LossError
from sds_clip.models.losses.sds import NoisePredictor, sds_loss
from sds_clip.models.losses.weighting import WEIGHTINGS, weight
from sds_clip.models.mapper import Mapper
from sds_clip.models.noise import Levels
from tests.models.losses.toys import ToyTeacher, toy_teacher

TIMESTEPS = torch.tensor([0, 3, 2])
ABAR = np.array([0.99, 0.1, 0.5])
WEIGHTS = {
    "uniform": np.ones(3),
    "one-minus-abar": np.array([0.01, 0.9, 0.5]),
    "sqrt-abar": np.sqrt(ABAR) * np.array([0.01, 0.9, 0.5]),
    "min-snr": np.array([5 / 99, 1.0, 1.0]),
}


def inputs(seed: int = 1) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    latents = torch.randn(3, 2, 2, 2, generator=generator)
    return latents, torch.randn(3, 3, 2, generator=generator), torch.randn(3, 2, 2, 2, generator=generator)


def errors_by_hand(
    latents: Tensor, captions: Tensor, noise: Tensor, teacher: ToyTeacher
) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    """eps_hat - eps in numpy and float64, one sample and one matrix product at a time."""
    a, b = teacher.a.double().numpy(), teacher.b.double().numpy()
    rows = []
    for z, c, e, abar in zip(latents.detach(), captions, noise, ABAR, strict=True):
        z64, c64, e64 = (part.double().numpy().ravel() for part in (z, c, e))
        noisy = np.sqrt(abar) * z64 + np.sqrt(1 - abar) * e64
        rows.append(a @ noisy + b @ c64 - e64)
    return np.stack(rows)


def objective_by_hand(
    latents: Tensor, captions: Tensor, noise: Tensor, teacher: ToyTeacher, weighting: str
) -> float:
    errors = errors_by_hand(latents, captions, noise, teacher)
    return float((WEIGHTS[weighting][:, None] * errors**2).sum() / errors.size)


def test_toy_is_a_noise_predictor() -> None:
    assert isinstance(toy_teacher(), NoisePredictor)


@pytest.mark.parametrize("gradient", ["full", "sds"])
@pytest.mark.parametrize("weighting", WEIGHTINGS)
def test_value_is_the_formula_computed_by_hand(weighting: str, gradient: str) -> None:
    latents, captions, noise = inputs()
    teacher = toy_teacher()
    result = sds_loss(
        latents, captions, TIMESTEPS, noise, teacher=teacher, weighting=weighting, gradient=gradient
    )
    expected = objective_by_hand(latents, captions, noise, teacher, weighting)
    assert result.loss.item() == pytest.approx(expected, rel=1e-5)
    residual = (errors_by_hand(latents, captions, noise, teacher) ** 2).mean(axis=1)
    np.testing.assert_allclose(result.residual.numpy(), residual, rtol=1e-5)


@pytest.mark.parametrize("on", ["latents", "captions"])
@pytest.mark.parametrize("weighting", WEIGHTINGS)
def test_full_gradient_is_that_of_finite_differences(weighting: str, on: str) -> None:
    latents, captions, noise = inputs()
    teacher = toy_teacher()
    moved = {"latents": latents, "captions": captions}[on].requires_grad_()
    sds_loss(latents, captions, TIMESTEPS, noise, teacher=teacher, weighting=weighting).loss.backward()
    assert moved.grad is not None

    def objective_at(value: Tensor) -> float:
        at = {"latents": latents.detach(), "captions": captions.detach(), on: value}
        return objective_by_hand(at["latents"], at["captions"], noise, teacher, weighting)

    for position in np.ndindex(*moved.shape):
        step = torch.zeros(moved.shape, dtype=torch.float64)
        step[position] = 1e-4
        above, below = (
            objective_at(moved.detach().double() + step),
            objective_at(moved.detach().double() - step),
        )
        assert moved.grad[position].item() == pytest.approx((above - below) / 2e-4, rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("weighting", WEIGHTINGS)
def test_sds_gradient_is_its_formula(weighting: str) -> None:
    latents, captions, noise = inputs()
    teacher = toy_teacher()
    latents.requires_grad_()
    loss = sds_loss(
        latents, captions, TIMESTEPS, noise, teacher=teacher, weighting=weighting, gradient="sds"
    ).loss
    loss.backward()
    errors = errors_by_hand(latents, captions, noise, teacher)
    expected = 2 / errors.size * (WEIGHTS[weighting] * np.sqrt(ABAR))[:, None] * errors
    assert latents.grad is not None
    np.testing.assert_allclose(latents.grad.flatten(1).numpy(), expected, rtol=1e-4, atol=1e-7)


def test_sds_gradient_is_pushed_through_the_mapper() -> None:
    _, captions, noise = inputs()
    teacher = toy_teacher()
    mapper = Mapper(4, (2, 2, 2), input="raw", seed=3)
    features = torch.randn(3, 4, generator=torch.Generator().manual_seed(5), requires_grad=True)
    latents = mapper(features)
    sds_loss(latents, captions, TIMESTEPS, noise, teacher=teacher, gradient="sds").loss.backward()
    errors = errors_by_hand(latents, captions, noise, teacher)
    on_latents = 2 / errors.size * np.sqrt(ABAR)[:, None] * errors
    weight, bias = mapper.linear.weight, mapper.linear.bias
    assert weight.grad is not None
    assert bias.grad is not None
    assert features.grad is not None
    f = features.detach().double().numpy()
    np.testing.assert_allclose(weight.grad.numpy(), on_latents.T @ f, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(bias.grad.numpy(), on_latents.sum(axis=0), rtol=1e-4, atol=1e-6)
    by_hand = on_latents @ weight.detach().double().numpy()
    np.testing.assert_allclose(features.grad.numpy(), by_hand, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("gradient", "asked"), [("full", True), ("sds", False)])
def test_only_the_full_gradient_runs_the_teacher_with_a_graph(gradient: str, asked: bool) -> None:
    latents, captions, noise = inputs()
    teacher = toy_teacher()
    result = sds_loss(
        latents.requires_grad_(), captions, TIMESTEPS, noise, teacher=teacher, gradient=gradient
    )
    assert teacher.saw_gradients == [asked]
    assert not result.residual.requires_grad


def test_residual_under_another_caption_is_at_the_same_noise_and_without_a_graph() -> None:
    latents, captions, noise = inputs()
    teacher = toy_teacher()
    shuffled = captions.roll(1, dims=0)
    with torch.no_grad():
        found = sds_loss(latents.requires_grad_(), shuffled, TIMESTEPS, noise, teacher=teacher).residual
    by_hand = (errors_by_hand(latents, shuffled, noise, teacher) ** 2).mean(axis=1)
    np.testing.assert_allclose(found.numpy(), by_hand, rtol=1e-5)
    assert teacher.saw_gradients == [False]


def test_latents_of_another_shape_than_the_noise_are_refused() -> None:
    latents, captions, noise = inputs()
    with pytest.raises(LossError, match=r"\(3, 2, 2, 2\)"):
        inspect.unwrap(sds_loss)(latents, captions, TIMESTEPS, noise[..., :1], teacher=toy_teacher())


def test_unknown_options_are_refused() -> None:
    latents, captions, noise = inputs()
    with pytest.raises(LossError, match="full or sds"):
        sds_loss(latents, captions, TIMESTEPS, noise, teacher=toy_teacher(), gradient="half")
    with pytest.raises(LossError, match="min-snr"):
        sds_loss(latents, captions, TIMESTEPS, noise, teacher=toy_teacher(), weighting="snr")


@pytest.mark.parametrize("name", WEIGHTINGS)
def test_weights_at_both_ends_of_the_schedule_are_finite(name: str) -> None:
    assert weight(name, Levels.of_abar(torch.tensor([0.0, 1.0]))).isfinite().all()


def test_weights_in_a_flow_are_those_of_its_signal_and_its_noise() -> None:
    levels = Levels.of_flow(torch.tensor([0.2, 0.5, 1.0]))
    for name, by_hand in {
        "uniform": [1, 1, 1], "one-minus-abar": [0.04, 0.25, 1], "sqrt-abar": [0.8 * 0.04, 0.5 * 0.25, 0],
        "min-snr": [5 / 16, 1, 1],
    }.items():  # fmt: skip
        torch.testing.assert_close(weight(name, levels), torch.tensor(by_hand, dtype=torch.float32))


@pytest.mark.parametrize("gradient", ["full", "sds"])
def test_a_flow_s_noise_is_scaled_by_its_own_levels(gradient: str) -> None:
    latents, captions, noise = inputs()
    toy, sigmas = toy_teacher(), torch.tensor([0.1, 0.5, 0.9])
    toy.levels = Levels.of_flow(sigmas)
    latents.requires_grad_()
    found = sds_loss(latents, captions, torch.arange(3), noise, teacher=toy, gradient=gradient)
    found.loss.backward()
    a, b = toy.a.double(), toy.b.double()
    z, c, e = (each.detach().double().flatten(1) for each in (latents, captions, noise))
    s, n = (1 - sigmas[:, None]).double(), sigmas[:, None].double()
    error = (s * z + n * e) @ a.T + c @ b.T - e
    assert found.loss.item() == pytest.approx(error.square().mean().item(), rel=1e-5)
    expected = 2 / error.numel() * s * (error if gradient == "sds" else error @ a)
    assert latents.grad is not None
    torch.testing.assert_close(latents.grad.flatten(1).double(), expected, rtol=1e-4, atol=1e-6)


def test_min_snr_is_its_definition() -> None:
    abar = torch.linspace(0.01, 0.99, 20)
    snr = abar / (1 - abar)
    expected = torch.minimum(snr, torch.full_like(snr, 3.0)) / snr
    torch.testing.assert_close(weight("min-snr", Levels.of_abar(abar), gamma=3.0), expected)
    with pytest.raises(LossError, match="positive"):
        weight("min-snr", Levels.of_abar(abar), gamma=0.0)
