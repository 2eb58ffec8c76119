"""One matrix on the text side (arXiv 2502.03566): trained in place of a tower, and folded into its projection."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from sds_clip.models.clip.student import StudentError


class TextMap(nn.Module):
    """g -> g A, where g are text embeddings before their normalisation, and A begins as the identity."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.matrix = nn.Parameter(torch.eye(width))

    def forward(self, features: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
        return features @ self.matrix


@torch.no_grad()
def fold(network: nn.Module, matrix: Float[Tensor, "d d"]) -> None:
    """Multiply a CLIP's text projection by a matrix in place: its text embeddings are then those of a TextMap.

    The image embeddings stay, and the model is as fast as before.

    Raises:
        StudentError: the text tower does not end with a matrix.
    """
    projection = text_projection(network)
    if isinstance(projection, nn.Linear):
        projection.weight.copy_(matrix.T @ projection.weight)
        if projection.bias is not None:
            projection.bias.copy_(projection.bias @ matrix)
    else:
        projection.copy_(projection @ matrix)


def text_projection(network: nn.Module) -> nn.Linear | nn.Parameter:
    """Return the matrix with which a CLIP's text tower ends.

    Raises:
        StudentError: there is none.
    """
    tower: Any = getattr(network, "text", network)
    last = getattr(tower, "proj", getattr(tower, "text_projection", None))
    if isinstance(last, nn.Sequential):
        last = last[-1]
    if not isinstance(last, nn.Linear | nn.Parameter):
        raise StudentError(
            "This CLIP's text tower does not end with a matrix, so a map cannot be folded into it. Train layernorm "
            "or all instead."
        )
    return last
