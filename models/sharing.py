"""The memory that networks take together when they share some of their tensors."""

from __future__ import annotations

from collections.abc import Iterable

from torch import nn


def storages(network: nn.Module) -> dict[int, int]:
    """Return the size in bytes of each storage of the network's parameters and buffers, by its address."""
    tensors = [*network.parameters(), *network.buffers()]
    pieces = (tensor.untyped_storage() for tensor in tensors)
    return {piece.data_ptr(): piece.nbytes() for piece in pieces if piece.nbytes()}


def bytes_apart(networks: Iterable[nn.Module], others: Iterable[nn.Module]) -> int:
    """Return the bytes that the networks take together and do not share with any of the others."""
    shared = {address for other in others for address in storages(other)}
    own = {address: size for network in networks for address, size in storages(network).items()}
    return sum(size for address, size in own.items() if address not in shared)
