"""Terms that hold the student near its base, from L2-normalised features of both; the base's have no gradient."""

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from sds_clip.models.losses.contrastive import gather


def feature_distillation_loss(
    image: Float[Tensor, "b d"],
    text: Float[Tensor, "b d"],
    base_image: Float[Tensor, "b d"],
    base_text: Float[Tensor, "b d"],
) -> Float[Tensor, ""]:
    """Return the squared distance to the base's features: (|f_i - f0_i|^2 + |g_i - g0_i|^2) / 2, the mean over i.

    It is the feature distillation of CLIP-KD (arXiv 2307.12732), with the base as the teacher. Its gradient on f_i is
    (f_i - f0_i) / b.
    """
    squared = (image - base_image).square() + (text - base_text).square()
    return squared.sum(dim=1).mean() / 2


def similarity_distillation_loss(
    image: Float[Tensor, "b d"],
    text: Float[Tensor, "b d"],
    logit_scale: Float[Tensor, ""],
    base_image: Float[Tensor, "b d"],
    base_text: Float[Tensor, "b d"],
    base_scale: Float[Tensor, ""],
) -> Float[Tensor, ""]:
    """Return KL(p || q) of the base's similarities over the batch to the student's, the mean of both directions.

    p_i = softmax_j(s0 f0_i g0_j) and q_i = softmax_j(s f_i g_j), the mean over the images i; and the same with the
    texts i over the images j. It is the contrastive relational distillation of CLIP-KD (arXiv 2307.12732). Its gradient
    on the logit s f_i g_j is (q_ij - p_ij) / 2b in each direction. SigLIP's bias would change nothing. Several
    processes have the loss over all of the batch, as in `contrastive_loss`.
    """
    student = logit_scale * gather(image) @ gather(text).T
    base = base_scale * gather(base_image) @ gather(base_text).T
    return (_divergence(base, student) + _divergence(base.T, student.T)) / 2


def _divergence(base: Tensor, student: Tensor) -> Tensor:
    log_p, log_q = base.detach().log_softmax(dim=1), student.log_softmax(dim=1)
    return F.kl_div(log_q, log_p, reduction="batchmean", log_target=True)
