"""Distillation of the teacher's choice among captions, and a control with the same captions."""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from models.errors import LossError


def score_distillation_loss(
    student_logits: Float[Tensor, "b n"],
    teacher_errors: Float[Tensor, "b n"],
    *,
    temperature: float,
    valid: Bool[Tensor, "b n"] | None = None,
) -> Float[Tensor, ""]:
    """Return KL(p || q), with p the teacher's choice among an image's captions and q the student's.

    p = softmax(-d / temperature) over the denoising errors d(x, c), q = softmax(student_logits). It is the
    mean over the batch, in float32. Columns that are not `valid` are ignored in both.
    Each image's first column, its true caption, is always valid. Gradients go to `student_logits` alone.

    Raises LossError for a temperature that is not positive.
    """
    log_q = _log_softmax(student_logits, valid)
    log_p = teacher_choice(teacher_errors, temperature=temperature, valid=valid)
    return F.kl_div(log_q, log_p, reduction="batchmean", log_target=True)


def teacher_choice(
    errors: Float[Tensor, "b n"], *, temperature: float, valid: Bool[Tensor, "b n"] | None = None
) -> Float[Tensor, "b n"]:
    """Return log p of score distillation, without gradients.

    Raises LossError for a temperature that is not positive.
    """
    if not temperature > 0:
        raise LossError(f"The score temperature is {temperature}; it must be positive.")
    return _log_softmax(-errors.detach().float() / temperature, valid)


def hard_negative_loss(
    student_logits: Float[Tensor, "b n"], *, valid: Bool[Tensor, "b n"] | None = None
) -> Float[Tensor, ""]:
    """Return the cross-entropy of the true caption, column 0, over the columns of `score_distillation_loss`.

    It needs no teacher: -log softmax(student_logits)_0, mean over the batch, in float32. `valid` is as there.
    """
    return -_log_softmax(student_logits, valid)[:, 0].mean()


def _log_softmax(logits: Tensor, valid: Tensor | None) -> Tensor:
    """Return the log-softmax over the valid columns.

    The others get the lowest finite number, not -inf: their probability is 0, and 0 times their log is 0.
    """
    logits = logits.float()
    if valid is not None:
        logits = logits.masked_fill(~valid, torch.finfo(torch.float32).min)
    return logits.log_softmax(dim=1)
