import pytest
import torch
from torch import Tensor

from sds_clip.models.losses.ce_clip import intra_modal_loss, rank_loss

VALID = torch.tensor([[True, True, False], [True, True, True], [False, False, False]])
THRESHOLDS = torch.tensor([[0.5, 4.0, 9.0], [0.0, 1.0, 2.5], [9.0, 9.0, 9.0]])


def drawn(seed: int, *shape: int) -> Tensor:
    return 3 * torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def intra_modal(logits: Tensor, text_logits: Tensor) -> Tensor:
    rows = []
    for pair, others, mask in zip(logits[:, 0], text_logits, VALID, strict=True):
        among = [each.exp() for each, real in zip(others, mask, strict=True) if real]
        rows.append(-(pair.exp() / sum(among, pair.exp())).log())
    return torch.stack(rows).mean()


def rank(logits: Tensor, _: Tensor) -> Tensor:
    total = torch.zeros((), dtype=torch.float64)
    for row, thresholds, mask in zip(logits, THRESHOLDS, VALID, strict=True):
        for negative, threshold, real in zip(row[1:], thresholds, mask, strict=True):
            if real and threshold + negative - row[0] > 0:
                total = total + threshold + negative - row[0]
    return total / THRESHOLDS.numel()


@pytest.mark.parametrize("name", ["intra_modal", "rank"])
def test_loss_and_gradient_are_the_formula_s(name: str) -> None:
    leaves = [drawn(1, 3, 4), drawn(2, 3, 3)]
    exact = [leaf.double().requires_grad_() for leaf in leaves]
    ours = [leaf.requires_grad_() for leaf in leaves]
    if name == "rank":
        expected, found = rank(exact[0], exact[1]), rank_loss(ours[0], THRESHOLDS, VALID)
    else:
        expected, found = intra_modal(exact[0], exact[1]), intra_modal_loss(ours[0], ours[1], VALID)
    assert found.item() == pytest.approx(expected.item(), rel=1e-5)
    wanted = torch.autograd.grad(expected, exact, allow_unused=True, materialize_grads=True)
    for one, other in zip(
        torch.autograd.grad(found, ours, allow_unused=True, materialize_grads=True), wanted, strict=True
    ):
        torch.testing.assert_close(one, other.float(), rtol=1e-5, atol=1e-7)


def test_images_without_negatives_have_no_loss() -> None:
    logits, none = drawn(1, 3, 4), torch.zeros(3, 3, dtype=torch.bool)
    assert intra_modal_loss(logits, drawn(2, 3, 3), none) == 0
    assert rank_loss(logits, THRESHOLDS, none) == 0
