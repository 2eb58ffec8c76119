import numpy as np
import pytest
import torch
from scipy.special import softmax
from scipy.stats import entropy

from sds_clip.models.errors import LossError
from sds_clip.models.losses.score import hard_negative_loss, score_distillation_loss

LOGITS = torch.tensor([[2.0, 1.0, -1.0], [0.5, 0.0, 3.0]])
ERRORS = torch.tensor([[0.10, 0.12, 0.20], [0.30, 0.25, 0.28]])
VALID = torch.tensor([[True, True, True], [True, True, False]])


def test_score_distillation_is_scipys_relative_entropy() -> None:
    p, q = softmax(-ERRORS.double().numpy() / 0.05, axis=1), softmax(LOGITS.double().numpy(), axis=1)
    loss = score_distillation_loss(LOGITS, ERRORS, temperature=0.05)
    assert loss.item() == pytest.approx(entropy(p, q, axis=1).mean(), rel=1e-5)


def test_masked_columns_have_no_part_whatever_they_hold() -> None:
    logits, errors = LOGITS.clone(), ERRORS.clone()
    logits[1, 2], errors[1, 2] = float("nan"), float("inf")
    logits.requires_grad_()
    loss = score_distillation_loss(logits, errors, temperature=0.05, valid=VALID)
    loss.backward()
    p, q = softmax(-ERRORS.double().numpy()[1, :2] / 0.05), softmax(LOGITS.double().numpy()[1, :2])
    first = score_distillation_loss(LOGITS[:1], ERRORS[:1], temperature=0.05).item()
    assert loss.item() == pytest.approx((first + entropy(p, q)) / 2, rel=1e-5)
    assert logits.grad is not None
    np.testing.assert_allclose(logits.grad[1].numpy(), [*(q - p) / 2, 0], rtol=1e-4, atol=1e-7)


def test_student_that_agrees_with_the_teacher_has_no_loss_and_no_gradient() -> None:
    logits = (-ERRORS / 0.05).requires_grad_()
    loss = score_distillation_loss(logits, ERRORS, temperature=0.05)
    loss.backward()
    assert loss.item() == pytest.approx(0, abs=1e-6)
    assert logits.grad is not None
    assert logits.grad.abs().max() < 1e-6


def test_teacher_gets_no_gradient() -> None:
    errors = ERRORS.clone().requires_grad_()
    score_distillation_loss(LOGITS.clone().requires_grad_(), errors, temperature=0.05).backward()
    assert errors.grad is None


def test_control_is_the_cross_entropy_of_the_first_column() -> None:
    q = softmax(LOGITS.double().numpy(), axis=1)
    assert hard_negative_loss(LOGITS).item() == pytest.approx(-np.log(q[:, 0]).mean(), rel=1e-5)
    masked = softmax(LOGITS.double().numpy()[1, :2])
    expected = -(np.log(q[0, 0]) + np.log(masked[0])) / 2
    assert hard_negative_loss(LOGITS, valid=VALID).item() == pytest.approx(expected, rel=1e-5)


def test_any_column_can_be_the_right_one() -> None:
    q = softmax(LOGITS.double().numpy(), axis=1)
    loss = hard_negative_loss(LOGITS, right=torch.tensor([2, 1]))
    assert loss.item() == pytest.approx(-(np.log(q[0, 2]) + np.log(q[1, 1])) / 2, rel=1e-5)


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan")])
def test_temperature_that_is_not_positive_is_refused(temperature: float) -> None:
    with pytest.raises(LossError, match="positive"):
        score_distillation_loss(LOGITS, ERRORS, temperature=temperature)


def written_out(
    logits: torch.Tensor, valid: torch.Tensor, right: list[int], gamma: float, smoothing: float
) -> torch.Tensor:
    """FSC-CLIP's global term, one candidate after the other."""
    losses = []
    for row, mask, own in zip(logits, valid, right, strict=True):
        real = [column for column in range(len(row)) if mask[column]]
        total = sum(row[column].exp() for column in real)
        loss = torch.zeros((), dtype=torch.float64)
        for column in real:
            q = row[column].exp() / total
            label = (1 - smoothing) * (column == own) + smoothing / len(real)
            loss = loss - label * (1 - q) ** gamma * q.log()
        losses.append(loss)
    return torch.stack(losses).mean()


@pytest.mark.parametrize(("gamma", "smoothing"), [(2.0, 0.02), (2.0, 0.0), (0.0, 0.1), (0.5, 0.3)])
@pytest.mark.parametrize("right", [None, [2, 1]])
def test_focal_weight_and_label_smoothing_are_the_formula_s(
    right: list[int] | None, gamma: float, smoothing: float
) -> None:
    exact, ours = LOGITS.double().requires_grad_(), LOGITS.clone().requires_grad_()
    expected = written_out(exact, VALID, right or [0, 0], gamma, smoothing)
    chosen = None if right is None else torch.tensor(right)
    found = hard_negative_loss(ours, right=chosen, valid=VALID, focal_gamma=gamma, label_smoothing=smoothing)
    assert found.item() == pytest.approx(expected.item(), rel=1e-5)
    (expected_gradient,), (gradient,) = torch.autograd.grad(expected, exact), torch.autograd.grad(found, ours)
    torch.testing.assert_close(gradient, expected_gradient.float(), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("gamma", [0.5, 2.0])
def test_a_lone_candidate_has_no_loss_and_a_finite_gradient_under_a_focal_weight(gamma: float) -> None:
    logits = LOGITS.clone().requires_grad_()
    loss = hard_negative_loss(logits, valid=torch.tensor([[True, False, False]] * 2), focal_gamma=gamma)
    (gradient,) = torch.autograd.grad(loss, logits)
    assert loss.item() == 0
    assert not gradient.any()
