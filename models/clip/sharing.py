"""Networks that share tensors, and the memory that they take together."""

from collections import Counter
from collections.abc import Collection, Iterable
from copy import deepcopy
from weakref import WeakKeyDictionary

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
    """Return the size in bytes of each storage of the network's parameters, their packs and buffers, by its address."""
    tensors = [*network.parameters(), *network.buffers()]
    pieces = (tensor.untyped_storage() for tensor in tensors)
    return {piece.data_ptr(): piece.nbytes() for piece in pieces if piece.nbytes()} | packs(network)


def packs(network: nn.Module) -> dict[int, int]:
    """Return the size in bytes of each packed weight (`sds_clip.models.clip.packed`), by its id: it has no address."""
    found = (getattr(parameter, "packed", None) for parameter in network.parameters())
    return {id(packed): packed.nbytes for packed in found if packed is not None}


def bytes_apart(networks: Iterable[nn.Module], others: Iterable[nn.Module]) -> int:
    """Return the bytes that the networks take together and do not share with any of the others."""
    held = HeldNetworks()
    for network in networks:
        held.add(network)
    return held.bytes_apart(others)


class HeldNetworks:
    """Networks that come and go, and the memory that they take. To add one costs the same however many there are."""

    def __init__(self) -> None:
        self._users = Counter[int]()
        """How many of the networks use each storage, by its address."""
        self._size_bytes = 0
        self._storages: WeakKeyDictionary[nn.Module, dict[int, int]] = WeakKeyDictionary()

    def add(self, network: nn.Module) -> None:
        for address, size in self._all_storages(network).items():
            self._size_bytes += size if not self._users[address] else 0
            self._users[address] += 1

    def remove(self, network: nn.Module) -> None:
        for address, size in self._all_storages(network).items():
            self._users[address] -= 1
            if not self._users[address]:
                del self._users[address]
                self._size_bytes -= size

    def bytes_apart(self, others: Iterable[nn.Module]) -> int:
        """Return the bytes that the networks take together and do not share with any of the others."""
        parts = {id(part): part for other in others for part in _parts(other)}.values()
        shared = {address: size for part in parts for address, size in self._storages_of(part).items()}
        return self._size_bytes - sum(size for address, size in shared.items() if address in self._users)

    def _all_storages(self, network: nn.Module) -> dict[int, int]:
        return {
            address: size for part in _parts(network) for address, size in self._storages_of(part).items()
        }

    def _storages_of(self, network: nn.Module) -> dict[int, int]:
        """What `storages` finds, remembered: walking through a network takes a millisecond."""
        if network not in self._storages:
            self._storages[network] = storages(network)
        return self._storages[network]


def _parts(network: nn.Module) -> tuple[nn.Module, ...]:
    """The network, and those that it computes with (`Member.shared`)."""
    return (network, *getattr(network, "shared", ()))
