"""Networks that share tensors, and the memory that they take together."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from copy import deepcopy

from torch import nn


def share(network: nn.Module, apart: Collection[str] = ()) -> nn.Module:
    """Copy a network, sharing all its tensors except those named in `apart`."""
    named = [
        *network.named_parameters(remove_duplicate=False),
        *network.named_buffers(remove_duplicate=False),
    ]
    # deepcopy treats whatever its memo holds as already copied, so these tensors are shared.
    return deepcopy(network, {id(value): value for name, value in named if name not in apart})


def storages(network: nn.Module) -> dict[int, int]:
    """Return the size in bytes of each storage of the network's parameters and buffers, by its address."""
    tensors = [*network.parameters(), *network.buffers()]
    pieces = (tensor.untyped_storage() for tensor in tensors)
    return {piece.data_ptr(): piece.nbytes() for piece in pieces if piece.nbytes()}


def bytes_apart(
    networks: Iterable[nn.Module],
    others: Iterable[nn.Module],
    of: Callable[[nn.Module], Mapping[int, int]] = storages,
) -> int:
    """Return the bytes that the networks take together and do not share with any of the others.

    `of` is `storages`, or what remembers its results.
    """
    shared = {address for other in _with_shared(others) for address in of(other)}
    own = {address: size for network in _with_shared(networks) for address, size in of(network).items()}
    return sum(size for address, size in own.items() if address not in shared)


def _with_shared(networks: Iterable[nn.Module]) -> Iterable[nn.Module]:
    """The networks, and each network that several of them compute with, once."""
    found = list(networks)
    return {id(network): network for one in found for network in (one, *getattr(one, "shared", ()))}.values()
