import numpy as np
import pytest
import torch
from torch import Tensor, nn

from sds_clip.models.mapper import Mapper, MapperError, ridge_fit


def pairs(count: int = 20) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(count, 5, generator=generator) + 3, torch.randn(
        count, 2, 3, 2, generator=generator
    ) + 1


@pytest.mark.parametrize("ridge", [1e-6, 0.1, 10.0])
def test_ridge_fit_is_least_squares_with_the_penalty_as_further_rows(ridge: float) -> None:
    features, latents = pairs()
    x, z = features.double().numpy(), latents.flatten(1).double().numpy()
    rows = np.concatenate(
        [np.hstack([x, np.ones((20, 1))]), np.hstack([np.sqrt(ridge) * np.eye(5), np.zeros((5, 1))])]
    )
    solution = np.linalg.lstsq(rows, np.concatenate([z, np.zeros((5, 12))]), rcond=None)[0]
    weight, bias = ridge_fit(features, latents, ridge)
    np.testing.assert_allclose(weight.numpy(), solution[:5].T, rtol=1e-8, atol=1e-10)
    np.testing.assert_allclose(bias.numpy(), solution[5], rtol=1e-8, atol=1e-10)


def test_ridge_start_recovers_latents_that_are_linear_in_the_normalised_features() -> None:
    features, _ = pairs(40)
    truth = Mapper(5, (2, 3, 2), seed=9)
    fitted = Mapper.from_ridge(features, truth(features).detach(), ridge=1e-9)
    torch.testing.assert_close(fitted(2 * features), truth(features), rtol=1e-4, atol=1e-4)


def test_random_start_is_nn_linears_and_a_function_of_the_seed() -> None:
    state = torch.get_rng_state()
    mapper = Mapper(5, (2, 3, 2), seed=4)
    assert torch.equal(torch.get_rng_state(), state)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(4)
        linear = nn.Linear(5, 12)
    torch.testing.assert_close(mapper.linear.weight, linear.weight)
    torch.testing.assert_close(mapper.linear.bias, linear.bias)
    assert not torch.equal(Mapper(5, (2, 3, 2), seed=5).linear.weight, mapper.linear.weight)


def test_inputs_are_normalised_or_raw_as_named() -> None:
    features, _ = pairs(3)
    norms = np.linalg.norm(features.numpy(), axis=1, keepdims=True)
    for name, seen in (("normalized", features.numpy() / norms), ("raw", features.numpy())):
        mapper = Mapper(5, (2, 3, 2), input=name)
        weight, bias = mapper.linear.weight.detach().numpy(), mapper.linear.bias.detach().numpy()
        by_hand = (seen @ weight.T + bias).reshape(3, 2, 3, 2)
        np.testing.assert_allclose(mapper(features).detach().numpy(), by_hand, rtol=1e-4, atol=1e-5)


def test_latents_are_float32_under_autocast() -> None:
    features, _ = pairs(3)
    mapper = Mapper(5, (2, 3, 2))
    expected = mapper(features)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(mapper(features), expected)


def test_what_cannot_be_fitted_is_refused() -> None:
    features, latents = pairs()
    with pytest.raises(MapperError, match="positive"):
        ridge_fit(features, latents, 0.0)
    with pytest.raises(MapperError, match="0 features"):
        ridge_fit(features[:0], latents[:0], 1.0)
    with pytest.raises(MapperError, match="not finite"):
        ridge_fit(features, latents / 0, 1.0)
    with pytest.raises(MapperError, match="normalized or raw"):
        Mapper(5, (2, 3, 2), input="cooked")
