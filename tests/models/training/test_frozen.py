"""Embeddings of frozen towers are computed once, and always in batches of one size."""

import pytest
import torch
from torch import Tensor

from sds_clip.models.training import frozen as module
from sds_clip.models.training.frozen import Frozen


class Tower:
    """Doubles its inputs, and keeps what it was given."""

    def __init__(self) -> None:
        self.seen: list[list[float]] = []

    def __call__(self, inputs: Tensor) -> Tensor:
        self.seen.append(inputs[:, 0].tolist())
        return 2 * inputs


ROWS = torch.arange(10.0)[:, None]


def embed(frozen: Frozen, keys: list[int]) -> list[float]:
    rows: list[float] = frozen(keys, lambda places: ROWS[[keys[place] for place in places]])[:, 0].tolist()
    return rows


def test_each_input_is_embedded_once_in_batches_of_one_size() -> None:
    tower = Tower()
    frozen = Frozen(tower, 3)
    assert embed(frozen, [4, 1, 4, 2, 7]) == [8, 2, 8, 4, 14]
    assert (7 in frozen, 9 in frozen) == (True, False)
    assert embed(frozen, [7, 9]) == [14, 18]
    assert tower.seen == [[4, 1, 2], [7, 7, 7], [9, 9, 9]]


def test_no_more_is_kept_than_there_is_room_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_KNOWN", 1)
    tower = Tower()
    frozen = Frozen(tower, 1)
    for _ in range(2):
        assert embed(frozen, [0, 5]) == [0, 10]
    assert tower.seen == [[0], [5], [5]]
