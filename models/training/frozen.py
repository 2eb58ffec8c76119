"""Embeddings of frozen towers, each computed once."""

from collections.abc import Callable, Hashable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

MAX_KNOWN = 2**20
"""How many embeddings to keep. Once full, no more are added and none is dropped."""


class Frozen:
    """The embeddings of inputs by their keys.

    The tower always sees the same number of inputs. So an embedding does not depend on what was known before, and a
    resumed run has the same ones.
    """

    def __init__(self, encode: Callable[[Tensor], Float[Tensor, "n d"]], size: int) -> None:
        self._encode, self._size = encode, size
        self._known: dict[Hashable, Tensor] = {}

    def __contains__(self, key: Hashable) -> bool:
        """Whether the embedding of a key is known. It then stays so."""
        return key in self._known

    def __call__(
        self, keys: Sequence[Hashable], inputs: Callable[[list[int]], Tensor]
    ) -> Float[Tensor, "n d"]:
        """Return the embeddings of `keys`. `inputs` gives the tower's inputs at these positions."""
        places = {key: place for place, key in enumerate(keys)}
        found = {key: self._known[key] for key in places if key in self._known}
        missing = [key for key in places if key not in found]
        for start in range(0, len(missing), self._size):
            chunk = missing[start : start + self._size]
            encoded = self._encoded(inputs([places[key] for key in chunk]))
            found |= zip(chunk, encoded, strict=True)
        for key in missing[: max(0, MAX_KNOWN - len(self._known))]:
            self._known[key] = found[key]
        return torch.stack([found[key] for key in keys])

    @torch.no_grad()
    def _encoded(self, inputs: Tensor) -> Float[Tensor, "n d"]:
        padding = inputs[-1:].expand(self._size - len(inputs), *inputs.shape[1:])
        return self._encode(torch.cat([inputs, padding]))[: len(inputs)]
