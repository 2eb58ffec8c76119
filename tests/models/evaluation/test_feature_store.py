import errno
import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from models.evaluation import feature_store
from models.evaluation.errors import EvaluationError, StoreInUse
from models.evaluation.feature_store import FeatureStore, drop_store


def key(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()


def unit(count: int, seed: int = 0) -> Tensor:
    return F.normalize(torch.randn(count, 8, generator=torch.Generator().manual_seed(seed)), dim=-1)


def fill(folder: Path, features: Tensor, names: str) -> None:
    with FeatureStore(folder, "images", 8) as store:
        store.name({key(name): row for name, row in zip(names, store.add(features), strict=True)})


def test_what_was_added_is_there_after_opening_again(tmp_path: Path) -> None:
    features = unit(3)
    fill(tmp_path, features, "abc")
    with FeatureStore(tmp_path, "images", 8) as store:
        assert torch.equal(store.take([key("c"), key("a"), key("c")]), features[[2, 0, 2]])
        assert key("d") not in store
        assert len(store) == 3


def test_two_keys_may_name_one_row(tmp_path: Path) -> None:
    fill(tmp_path, unit(1), "a")
    with FeatureStore(tmp_path, "images", 8) as store:
        store.name({key("b"): store.row(key("a"))})
    with FeatureStore(tmp_path, "images", 8) as store:
        assert torch.equal(*store.take([key("a"), key("b")]).split(1))


def test_no_keys_take_no_rows(tmp_path: Path) -> None:
    with FeatureStore(tmp_path, "images", 8) as store:
        assert store.take([]).shape == (0, 8)


@pytest.mark.parametrize("cut", range(1, 41))
def test_keys_that_a_kill_cut_off_are_dropped_with_their_rows(tmp_path: Path, cut: int) -> None:
    features = unit(3)
    fill(tmp_path, features, "abc")
    keys = tmp_path / "images.keys"
    keys.write_bytes(keys.read_bytes()[:-cut])
    with FeatureStore(tmp_path, "images", 8) as store:
        assert key("c") not in store
        assert torch.equal(store.take([key("a"), key("b")]), features[:2])
        store.name({key("d"): row for row in store.add(unit(1, seed=1))})
    with FeatureStore(tmp_path, "images", 8) as store:
        assert torch.equal(store.take([key("b"), key("d")]), torch.cat([features[1:2], unit(1, seed=1)]))


def test_rows_without_keys_are_dropped(tmp_path: Path) -> None:
    fill(tmp_path, unit(2), "ab")
    with FeatureStore(tmp_path, "images", 8) as store:
        store.add(unit(5, seed=1))
    with FeatureStore(tmp_path, "images", 8) as store:
        assert len(store) == 2


@pytest.mark.parametrize("damage", [np.zeros(8), np.full(8, np.nan), np.full(8, 1e30)])
def test_a_damaged_row_goes_for_good_with_what_follows(tmp_path: Path, damage: np.ndarray) -> None:
    features = unit(4)
    fill(tmp_path, features, "abcd")
    with (tmp_path / "images.f32").open("r+b") as file:
        file.seek(2 * 8 * 4)
        file.write(damage.astype("<f4").tobytes())
    with FeatureStore(tmp_path, "images", 8) as store:
        assert key("b") in store
        assert key("c") not in store
        assert key("d") not in store
        # Another row comes to stand in the place of c's: c's key must not find it, now or later.
        store.name({key("e"): row for row in store.add(unit(1, seed=1))})
    with FeatureStore(tmp_path, "images", 8) as store:
        assert key("c") not in store
        assert torch.equal(store.take([key("e")]), unit(1, seed=1))


def test_a_second_user_is_refused(tmp_path: Path) -> None:
    with (
        FeatureStore(tmp_path, "images", 8),
        pytest.raises(StoreInUse, match="another run is using it"),
    ):
        FeatureStore(tmp_path, "images", 8)
    FeatureStore(tmp_path, "images", 8).close()


def test_a_file_system_without_locks_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def flock(file: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", flock)
    with pytest.raises(EvaluationError, match=r"has no locks \(No locks available\)"):
        FeatureStore(tmp_path, "images", 8)


def test_a_store_is_dropped_unless_it_is_used(tmp_path: Path) -> None:
    folder = tmp_path / "kept"
    with FeatureStore(folder, "images", 8):
        assert not drop_store(folder, "images")
    assert drop_store(folder, "images")
    assert list(tmp_path.iterdir()) == []
    fill(folder, unit(1), "a")


def test_a_store_that_is_dropped_while_it_is_opened_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows that were written into it would be lost, and found by nobody."""
    fill(tmp_path / "kept", unit(1), "a")
    lock = feature_store._lock

    def dropped_first(file: int) -> None:
        monkeypatch.setattr(feature_store, "_lock", lock)
        assert drop_store(tmp_path / "kept", "images")
        lock(file)

    monkeypatch.setattr(feature_store, "_lock", dropped_first)
    with pytest.raises(StoreInUse):
        FeatureStore(tmp_path / "kept", "images", 8)
