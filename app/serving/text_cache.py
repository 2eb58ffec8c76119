"""Text features that were computed before, by version, precision and text."""

from collections import OrderedDict
from collections.abc import Hashable

from torch import Tensor


class TextCache:
    """A bounded map that drops what was used longest ago.

    The forward thread alone reads and writes it; other threads may ask what it holds.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._features: OrderedDict[Hashable, Tensor] = OrderedDict()

    def __len__(self) -> int:
        return len(self._features)

    def __contains__(self, key: Hashable) -> bool:
        return key in self._features

    def get(self, key: Hashable) -> Tensor | None:
        """The features kept under `key`, now the last to be dropped."""
        features = self._features.get(key)
        if features is not None:
            self._features.move_to_end(key)
        return features

    def put(self, key: Hashable, features: Tensor) -> None:
        """Keep `features`, and drop the oldest if that is one too many."""
        if self._size == 0:
            return
        self._features[key] = features
        self._features.move_to_end(key)
        if len(self._features) > self._size:
            self._features.popitem(last=False)
