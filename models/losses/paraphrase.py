"""The alignment of two captions of one image."""

from jaxtyping import Float
from open_clip.loss import ClipLoss
from torch import Tensor

from sds_clip.models.losses.contrastive import gather_uneven


def paraphrase_loss(
    captions: Float[Tensor, "m d"], others: Float[Tensor, "m d"], logit_scale: Float[Tensor, ""]
) -> Float[Tensor, ""]:
    """Return how badly two captions of an image find each other among the batch's (arXiv 2510.16540, alignment).

    The features are L2-normalised, and row i of both belongs to one image. With the student's logit scale s it is
    the mean over the batch's m images of (CE(s g h^T, i) + CE(s h g^T, i)) / 2, or 0 without any. READ-CLIP also
    decodes a paraphrase from the text, which is left out. Several processes have the loss over all of the batch, as in
    `contrastive_loss`, and may hold different numbers of rows. Gradients go to all three.
    """
    captions, others = gather_uneven(captions), gather_uneven(others)
    if not len(captions):
        return captions.sum()
    loss: Tensor = ClipLoss()(captions, others, logit_scale)
    return loss
