"""What CE-CLIP adds for hard negative captions: a contrast among texts, and a hinge whose thresholds adapt."""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor


def intra_modal_loss(
    logits: Float[Tensor, "b candidates"], text_logits: Float[Tensor, "b n"], valid: Bool[Tensor, "b n"]
) -> Float[Tensor, ""]:
    """Return the contrast of a pair with the likeness of its caption to its negatives (arXiv 2306.08832, L_imc).

    With image f_i, caption g_i, negatives g_ik and the logit scale s, the mean over the batch of

    -log( exp(s f_i g_i) / (exp(s f_i g_i) + sum_k exp(s g_i g_ik)) )

    `logits` has s f_i g_i in column 0, and `text_logits` the s g_i g_ik that are `valid`. Without any, the loss is 0.
    The authors' program takes the negatives of the whole batch in the sum. Gradients go to both.
    """
    among = text_logits.masked_fill(~valid, torch.finfo(torch.float32).min)
    return -torch.cat([logits[:, :1], among], dim=1).log_softmax(dim=1)[:, 0].mean()


def rank_loss(
    logits: Float[Tensor, "b candidates"], thresholds: Float[Tensor, "b n"], valid: Bool[Tensor, "b n"]
) -> Float[Tensor, ""]:
    """Return the hinge by which a caption must be ahead of each negative (arXiv 2306.08832, L_cmr).

    The mean over all b n places, those that are not `valid` counting 0, of max(0, T_ik + s f_i g_ik - s f_i g_i).
    `logits` has s f_i g_i in column 0, before the s f_i g_ik. Gradients go to `logits` alone.
    """
    return (F.relu(thresholds + logits[:, 1:] - logits[:, :1]) * valid).mean()
