"""How much memory networks take together where some of their tensors are the same ones."""

from __future__ import annotations

from collections.abc import Iterable

from torch import nn


def storages(network: nn.Module) -> dict[int, int]:
    """The bytes of each piece of memory that the network's parameters and buffers lie in, by its address."""
    tensors = [*network.parameters(), *network.buffers()]
    pieces = (tensor.untyped_storage() for tensor in tensors)
    return {piece.data_ptr(): piece.nbytes() for piece in pieces if piece.nbytes()}


def bytes_apart(networks: Iterable[nn.Module], others: Iterable[nn.Module]) -> int:
    """Bytes that the networks take together and share with none of the others."""
    shared = {address for other in others for address in storages(other)}
    own = {address: size for network in networks for address, size in storages(network).items()}
    return sum(size for address, size in own.items() if address not in shared)
