"""The contrastive loss of CLIP, or of SigLIP, over the whole batch of all processes."""

from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from jaxtyping import Float
from open_clip.loss import ClipLoss
from torch import Tensor


def contrastive_loss(
    image_features: Float[Tensor, "b d"],
    text_features: Float[Tensor, "b d"],
    logit_scale: Float[Tensor, ""],
    *,
    logit_bias: Float[Tensor, ""] | None = None,
    negatives: Float[Tensor, "m d"] | None = None,
) -> Float[Tensor, ""]:
    """Return the loss by which such a model was trained, on L2-normalised features; row i belongs to row i.

    `logit_scale` s is the factor itself. Without a `logit_bias` it is open_clip's ClipLoss: the mean over the global
    batch of (CE(s f g^T, i) + CE(s g f^T, i)) / 2. With a bias b it is open_clip's SigLipLoss (arXiv 2303.15343,
    equation 2): the mean over the images i of sum_j -log sigmoid(z_ij (s f_i g_j^T + b)), where z_ij is 1 if i = j,
    or else -1.

    `negatives` are features of hard negative captions: the extra columns of NegCLIP (arXiv 2210.01936). Every
    image sees them, in the image-to-text direction only, since they have no image of their own. SigLIP's loss has no
    directions: each negative makes a pair with each image whose z is -1.

    With several processes, each holds its part of the batch and gets the loss over all of it. The gather is
    differentiable and its backward sums over the processes, as with open_clip's `gather_with_grad=True`. So
    the mean of their parameter gradients, which DDP takes, is the gradient of one process with the whole
    batch. Processes may hold different numbers of negatives, including `m` = 0, but all must give them or all
    give None.
    """
    image_features, text_features = gather(image_features), gather(text_features)
    negatives = None if negatives is None else gather_uneven(negatives)
    if logit_bias is not None:
        texts = text_features if negatives is None else torch.cat([text_features, negatives])
        each = sigmoid_losses(logit_scale * image_features @ texts.T + logit_bias)
        return each.sum() / len(image_features)
    if negatives is None:
        loss: Tensor = ClipLoss()(image_features, text_features, logit_scale)
        return loss
    true_columns = logit_scale * image_features @ text_features.T
    negative_columns = logit_scale * image_features @ negatives.T
    labels = torch.arange(len(image_features), device=image_features.device)
    image_to_text = F.cross_entropy(torch.cat([true_columns, negative_columns], dim=1), labels)
    return (image_to_text + F.cross_entropy(true_columns.T, labels)) / 2


def sigmoid_losses(logits: Float[Tensor, "n m"]) -> Float[Tensor, "n m"]:
    """Return -log sigmoid(z logit) of each pair: z is 1 on the diagonal, or else -1."""
    signs = 2 * torch.eye(*logits.shape, device=logits.device) - 1
    return -F.logsigmoid(signs * logits)


def gather_uneven(rows: Float[Tensor, "m d"]) -> Float[Tensor, "n d"]:
    """Gather all processes' rows in the order of ranks, padded because a gather needs equal lengths."""
    if _alone():
        return rows
    count = torch.tensor([len(rows)], device=rows.device)
    counts = [torch.empty_like(count) for _ in range(dist.get_world_size())]
    dist.all_gather(counts, count)
    lengths = [int(each) for each in counts]
    if not max(lengths):
        return rows
    padded = F.pad(rows, (0, 0, 0, max(lengths) - len(rows)))
    parts = gather(padded).chunk(len(lengths))
    return torch.cat([part[:length] for part, length in zip(parts, lengths, strict=True)])


def gather(rows: Float[Tensor, "m d"]) -> Float[Tensor, "n d"]:
    """Gather equally many rows from every process, in the order of ranks, as `contrastive_loss` says."""
    if _alone():
        return rows
    gathered: Tensor = _Gather.apply(rows)  # type: ignore[no-untyped-call]
    return gathered


def _alone() -> bool:
    return not dist.is_initialized() or dist.get_world_size() == 1


class _Gather(torch.autograd.Function):
    """torch's own differentiable gather is deprecated, and warns in every run."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:
        parts = [torch.empty_like(rows) for _ in range(dist.get_world_size())]
        dist.all_gather(parts, rows.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        """Return the sum of all processes' gradients on this process's rows."""
        total = gradient.clone()
        dist.all_reduce(total)
        return total.chunk(dist.get_world_size())[dist.get_rank()]
