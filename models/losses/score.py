"""Distillation of the teacher's choice among captions, and a control with the same captions."""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from sds_clip.models.errors import LossError


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
    An image with one valid column teaches nothing. Gradients go to `student_logits` alone.

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
    student_logits: Float[Tensor, "b n"],
    *,
    right: Int[Tensor, "b"] | None = None,
    valid: Bool[Tensor, "b n"] | None = None,
    focal_gamma: float = 0.0,
    label_smoothing: float = 0.0,
) -> Float[Tensor, ""]:
    """Return the cross-entropy of the right caption over the columns of `score_distillation_loss`.

    It is -log softmax(student_logits)_right, the mean over the batch, in float32. `right` is each image's right column;
    by default it is column 0, the true caption. `valid` is as there.

    With a focal gamma g or a label smoothing s it is FSC-CLIP's global term (arXiv 2410.05210), for n_i valid columns:

    L = -(1/b) sum_i sum_k y_ik (1 - q_ik)^g log q_ik,    y_ik = (1 - s) [k = right_i] + s / n_i

    Both are 0 by default, and L is then the cross-entropy. The focal weight has a gradient too.
    """
    log_q = _log_softmax(student_logits, valid)
    if focal_gamma or label_smoothing:
        counted = torch.ones_like(log_q) if valid is None else valid.float()
        right = torch.zeros_like(log_q[:, 0], dtype=torch.long) if right is None else right
        own = F.one_hot(right, log_q.shape[1])
        y = (1 - label_smoothing) * own + label_smoothing * counted / counted.sum(dim=1, keepdim=True)
        # A lone candidate has q = 1. The slope of 0 to a power below 1 is infinite, and infinity times 0 no number.
        focal = (-log_q.expm1()).clamp_min(torch.finfo(torch.float32).tiny) ** focal_gamma
        return -(y * focal * log_q).sum(dim=1).mean()
    if right is None:
        return -log_q[:, 0].mean()
    return F.nll_loss(log_q, right)


def _log_softmax(logits: Tensor, valid: Tensor | None) -> Tensor:
    """Return the log-softmax over the valid columns.

    The others get the lowest finite number, not -inf: their probability is 0, and 0 times their log is 0.
    """
    logits = logits.float()
    if valid is not None:
        logits = logits.masked_fill(~valid, torch.finfo(torch.float32).min)
    return logits.log_softmax(dim=1)
