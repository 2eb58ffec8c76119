"""L_noise against its formula, written out in numpy, one image and one condition at a time."""

import numpy as np
import pytest
import torch
from torch import Tensor

from sds_clip.models.errors import LossError
from sds_clip.models.losses.noise_contrast import noise_contrast_loss
from sds_clip.models.losses.weighting import WEIGHTINGS
from sds_clip.models.noise import Levels
from tests.models.losses.toys import ToyTeacher, toy_teacher

TIMESTEPS = torch.tensor([0, 3, 2, 1])
ABAR = np.array([0.99, 0.1, 0.5, 0.8])
SNR = ABAR / (1 - ABAR)
WEIGHTS = {
    "uniform": np.ones(4),
    "one-minus-abar": 1 - ABAR,
    "sqrt-abar": np.sqrt(ABAR) * (1 - ABAR),
    "min-snr": np.minimum(SNR, 5) / SNR,
}


def inputs(count: int = 4) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    latents, noise = torch.randn(2, count, 2, 2, 2, generator=generator)
    return latents, torch.randn(count, 3, 2, generator=generator), noise


def by_hand(
    latents: Tensor,
    conditions: Tensor,
    noise: Tensor,
    teacher: ToyTeacher,
    group: int,
    weighting: str = "uniform",
) -> float:
    a, b = teacher.a.double().numpy(), teacher.b.double().numpy()
    z, c, e = (part.double().flatten(1).numpy() for part in (latents, conditions, noise))

    def cosine(first: np.ndarray, second: np.ndarray) -> float:
        return float(first @ second / np.linalg.norm(first) / np.linalg.norm(second))

    def velocity(noise: np.ndarray, i: int) -> np.ndarray:
        """By the noise: z_0 = (z_t - sqrt(1 - abar) eps) / sqrt(abar), and v = sqrt(abar) eps - sqrt(1 - abar) z_0."""
        signal, disturbance = np.sqrt(ABAR[i]), np.sqrt(1 - ABAR[i])
        latents = (signal * z[i] + disturbance * e[i] - disturbance * noise) / signal
        found: np.ndarray = signal * noise - disturbance * latents
        return found

    losses = []
    for i in range(len(z)):
        noisy = a @ (np.sqrt(ABAR[i]) * z[i] + np.sqrt(1 - ABAR[i]) * e[i])
        own = velocity(noisy + b @ c[i], i)
        members = range(i // group * group, (i // group + 1) * group)
        right = np.exp(cosine(own, velocity(e[i], i)) / 0.1)
        wrong = sum(np.exp(cosine(own, velocity(noisy + b @ c[j], i)) / 0.1) for j in members if j != i)
        losses.append(-WEIGHTS[weighting][i] * np.log(right / (right + wrong)))
    return float(np.mean(losses))


@pytest.mark.parametrize("group", [2, 4])
@pytest.mark.parametrize("weighting", WEIGHTINGS)
def test_value_is_the_formula_computed_by_hand(weighting: str, group: int) -> None:
    latents, conditions, noise = inputs()
    teacher = toy_teacher()
    found = noise_contrast_loss(
        latents, conditions, TIMESTEPS, noise, teacher=teacher, group=group, weighting=weighting
    )
    expected = by_hand(latents, conditions, noise, teacher, group, weighting)
    assert found.loss.item() == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("group", [2, 4])
def test_gradient_on_the_conditions_is_that_of_finite_differences(group: int) -> None:
    latents, conditions, noise = inputs()
    teacher = toy_teacher()
    conditions.requires_grad_()
    noise_contrast_loss(latents, conditions, TIMESTEPS, noise, teacher=teacher, group=group).loss.backward()
    assert conditions.grad is not None
    for position in np.ndindex(*conditions.shape):
        step = torch.zeros(conditions.shape, dtype=torch.float64)
        step[position] = 1e-4
        above, below = (
            by_hand(latents, conditions.detach().double() + sign * step, noise, teacher, group)
            for sign in (1, -1)
        )
        assert conditions.grad[position].item() == pytest.approx((above - below) / 2e-4, rel=1e-3, abs=1e-5)


def test_conditions_that_are_alike_leave_nothing_to_tell() -> None:
    """The others' predictions are then the image's own, whose cosine is 1."""
    latents, conditions, noise = inputs()
    teacher = toy_teacher()
    alike = conditions[:1].expand_as(conditions)
    found = noise_contrast_loss(latents, alike, TIMESTEPS, noise, teacher=teacher, group=4)
    noisy = teacher.add_noise(latents, noise, TIMESTEPS)
    predicted = teacher.noise_pred(noisy, TIMESTEPS, alike)
    offset = torch.tensor(1 - ABAR, dtype=torch.float32).sqrt()[:, None, None, None] * noisy
    cosine = torch.cosine_similarity((predicted - offset).flatten(1), (noise - offset).flatten(1))
    assert found.loss.item() == pytest.approx(
        (1 + 3 * ((1 - cosine) / 0.1).exp()).log().mean().item(), rel=1e-4
    )


def test_in_a_flow_its_own_velocity_is_compared() -> None:
    latents, conditions, noise = inputs()
    teacher, sigmas = toy_teacher(), torch.tensor([0.1, 0.4, 0.6, 0.9])
    teacher.levels = Levels.of_flow(sigmas)
    at = torch.arange(4)
    found = noise_contrast_loss(latents, conditions, at, noise, teacher=teacher, group=4)
    noisy, sigma = teacher.add_noise(latents, noise, at), sigmas[:, None, None, None]
    true, losses = (noise - latents).flatten(1), []
    # The noise eps_hat = z_t + (1 - sigma) u.
    under = [
        ((teacher.noise_pred(noisy, at, condition.expand(4, -1, -1)) - noisy) / (1 - sigma)).flatten(1)
        for condition in conditions
    ]
    for i in range(4):
        cosines = [torch.cosine_similarity(under[i][i], each, dim=0) for each in [true[i], *(
            under[j][i] for j in range(4) if j != i)]]  # fmt: skip
        losses.append(-(torch.stack(cosines) / 0.1).log_softmax(dim=0)[0])
    assert found.loss.item() == pytest.approx(torch.stack(losses).mean().item(), rel=1e-4)


def test_residual_is_that_under_the_own_condition_without_a_graph() -> None:
    latents, conditions, noise = inputs()
    teacher = toy_teacher()
    found = noise_contrast_loss(
        latents, conditions.requires_grad_(), TIMESTEPS, noise, teacher=teacher, group=2
    )
    predicted = teacher.noise_pred(teacher.add_noise(latents, noise, TIMESTEPS), TIMESTEPS, conditions)
    torch.testing.assert_close(found.residual, (predicted - noise).square().mean(dim=(1, 2, 3)).detach())
    assert not found.residual.requires_grad


def test_samples_that_are_no_whole_groups_are_refused() -> None:
    latents, conditions, noise = inputs(3)
    with pytest.raises(LossError, match="3 samples cannot be split into groups of 2"):
        noise_contrast_loss(latents, conditions, TIMESTEPS[:3], noise, teacher=toy_teacher(), group=2)
