import pytest
import torch
from torch import Tensor

from sds_clip.models.teacher.gradient_scale import with_scaled_gradient


def leaf() -> Tensor:
    return torch.linspace(-1, 1, 16).reshape(1, 1, 4, 4).requires_grad_()


def test_the_network_s_gradient_has_a_greatest_entry_of_one_and_the_caller_s_its_own_size() -> None:
    seen: list[Tensor] = []

    def network(values: Tensor) -> Tensor:
        squares = values.square()
        squares.register_hook(seen.append)
        return squares.view_as(squares)

    values, weights = leaf(), torch.linspace(1e-8, 4e-8, 16).reshape(1, 1, 4, 4)
    loss = (weights * with_scaled_gradient(network, values)).sum() + values.sum()
    (gradient,) = torch.autograd.grad(loss, values)
    torch.testing.assert_close(seen[0], weights / 4e-8)
    torch.testing.assert_close(gradient - 1, 2 * weights * values.detach(), rtol=0, atol=1e-7)


def test_every_input_that_needs_a_gradient_gets_its_own() -> None:
    one, other, fixed = leaf(), leaf(), leaf().detach()
    output = with_scaled_gradient(lambda x, y, z: x * y + y * z, one, other, fixed)
    gradients = torch.autograd.grad(1e-8 * output.sum(), [one, other])
    torch.testing.assert_close(gradients[0], 1e-8 * other.detach())
    torch.testing.assert_close(gradients[1], 1e-8 * (one.detach() + fixed))


@pytest.mark.parametrize("factor", [0.0, float("nan"), float("inf")])
def test_no_gradient_stays_none_and_a_broken_one_stays_broken(factor: float) -> None:
    values = leaf()
    (gradient,) = torch.autograd.grad(factor * with_scaled_gradient(torch.square, values).sum(), values)
    assert bool(gradient.isfinite().all()) == (factor == 0)


def test_without_gradients_nothing_is_hooked() -> None:
    values = leaf()
    with torch.no_grad():
        assert torch.equal(with_scaled_gradient(torch.square, values), values.square())
    assert torch.equal(with_scaled_gradient(torch.square, values.detach()), values.square())
