"""Distillation of the teacher's choice among captions, and the control that gets the same captions."""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from models.losses.errors import LossError


def score_distillation_loss(
    student_logits: Float[Tensor, "b n"],
    teacher_errors: Float[Tensor, "b n"],
    *,
    temperature: float,
    valid: Bool[Tensor, "b n"] | None = None,
) -> Float[Tensor, ""]:
    """KL(p || q) from the teacher's choice among an image's captions to the student's, mean over the batch.

    p = softmax(-d / temperature) over the denoising errors d(x, c), q = softmax(student_logits). Columns that
    `valid` leaves out have no part in either; what they hold does not matter. Each image's first column, its
    true caption, is always valid. Computed in float32. Gradients go to `student_logits` alone.

    Raises LossError for a temperature that is not positive.
    """
    log_q = _log_softmax(student_logits, valid)
    log_p = teacher_choice(teacher_errors, temperature=temperature, valid=valid)
    return F.kl_div(log_q, log_p, reduction="batchmean", log_target=True)


def teacher_choice(
    errors: Float[Tensor, "b n"], *, temperature: float, valid: Bool[Tensor, "b n"] | None = None
) -> Float[Tensor, "b n"]:
    """log p of score distillation, without gradients. Raises LossError for a temperature that is not positive."""
    if not temperature > 0:
        raise LossError(f"The score temperature is {temperature}; it must be positive.")
    return _log_softmax(-errors.detach().float() / temperature, valid)


def hard_negative_loss(
    student_logits: Float[Tensor, "b n"], *, valid: Bool[Tensor, "b n"] | None = None
) -> Float[Tensor, ""]:
    """Cross entropy of the true caption, column 0, against the same columns: the control without a teacher.

    -log softmax(student_logits)_0, mean over the batch, in float32; `valid` as in score distillation.
    """
    return -_log_softmax(student_logits, valid)[:, 0].mean()


def _log_softmax(logits: Tensor, valid: Tensor | None) -> Tensor:
    """Over the valid columns. The others get the lowest finite number: probability 0, and 0 times it is 0."""
    logits = logits.float()
    if valid is not None:
        logits = logits.masked_fill(~valid, torch.finfo(torch.float32).min)
    return logits.log_softmax(dim=1)
