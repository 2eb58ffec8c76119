"""Features of a batch that is too large for memory (GradCache, arXiv 2101.06983; decision 9)."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor


class Encoded:
    """A batch's features, detached from their graph, and the way back into it.

    The loss is computed on `features`, and its gradient stops there; `backward` takes it through the encoder
    chunk by chunk. So the loss sees the whole batch, while only one chunk's graph is in memory. A batch of
    one chunk is encoded once, any other twice.
    """

    def __init__(self, encode: Callable[[Tensor], Tensor], inputs: Tensor, chunk_size: int | None) -> None:
        self._encode = encode
        self._chunks = torch.split(inputs, chunk_size or max(len(inputs), 1))
        with torch.set_grad_enabled(len(self._chunks) == 1):
            encoded = torch.cat([encode(chunk) for chunk in self._chunks])
        self._graph = encoded if len(self._chunks) == 1 else None
        self.features: Float[Tensor, "n d"] = encoded.detach().requires_grad_()

    def backward(self) -> None:
        """Add the gradient that the loss left on `features` to the encoder's gradients."""
        if self.features.grad is None:
            return
        if self._graph is not None:
            _push(self._graph, self.features.grad)
            return
        sizes = [len(chunk) for chunk in self._chunks]
        for chunk, gradient in zip(self._chunks, torch.split(self.features.grad, sizes), strict=True):
            _push(self._encode(chunk), gradient)


def _push(features: Tensor, gradient: Tensor) -> None:
    if features.requires_grad:  # False if the whole tower is frozen
        torch.autograd.backward(features, gradient)
