"""What a run finds in the cache, and that it depends on it for nothing else."""

import hashlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest
import torch
from torch import Tensor

from sds_clip.models.evaluation.kept import KeptErrors, KeptFeatures, open_cache

WIDTH = 8  # a row then has as many bytes as a key


def key(name: str) -> bytes:
    return hashlib.sha256(name.encode()).digest()


def rows(count: int, seed: int = 0) -> Tensor:
    return torch.randn(count, WIDTH, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def kept(tmp_path: Path) -> Iterator[Callable[..., KeptFeatures]]:
    with ExitStack() as opened:

        def run(by: str = "a", max_bytes: int | None = None) -> KeptFeatures:
            return opened.enter_context(closing(KeptFeatures(open_cache(tmp_path, max_bytes), by, WIDTH)))

        yield run


def test_rows_and_their_names_are_found_by_later_runs(kept: Callable[..., KeptFeatures]) -> None:
    first = kept()
    first.add([key("x"), key("y")], rows(2))
    first.name({key("file"): key("y"), key("copy"): key("y")})
    later = kept()
    later.fetch_named([key("file"), key("copy"), key("other")])
    later.fetch([key("x"), key("z")])
    assert torch.equal(later.take([key("copy"), key("x"), key("file")]), rows(2)[[1, 0, 1]])
    assert key("y") in later
    assert key("other") not in later
    assert key("z") not in later


def test_nothing_is_found_of_another_model(kept: Callable[..., KeptFeatures]) -> None:
    kept().add([key("x")], rows(1))
    other = kept("b")
    other.fetch([key("x")])
    assert key("x") not in other


def test_run_keeps_its_rows_whatever_the_cache_drops(kept: Callable[..., KeptFeatures]) -> None:
    features = kept(max_bytes=0)
    features.add([key("x")], rows(1))
    features.add([key("y")], rows(1, seed=1))
    features.name({key("file"): key("x")})
    assert torch.equal(features.take([key("y"), key("file")]), torch.cat([rows(1, seed=1), rows(1)]))
    assert features.take([]).shape == (0, WIDTH)
    with pytest.raises(KeyError):
        features.take([key("z")])


def test_name_whose_row_is_gone_is_not_found(tmp_path: Path, kept: Callable[..., KeptFeatures]) -> None:
    first = kept()
    first.add([key("x")], rows(1))
    first.name({key("file"): key("x")})
    with closing(open_cache(tmp_path)) as cache:
        cache.put(first._place("row", key("x")), b"of another width")
    later = kept()
    later.fetch_named([key("file")])
    assert key("file") not in later


def test_errors_are_found_by_later_runs(tmp_path: Path) -> None:
    d = torch.tensor([[0.1, 0.2], [0.3, 0.4]], dtype=torch.float64)
    KeptErrors(open_cache(tmp_path), "a").add(["i", "j"], ["a dog", "ein \ud800"], d)
    later = KeptErrors(open_cache(tmp_path), "a")
    later.fetch((image, caption) for image in "ij" for caption in ("a dog", "ein \ud800", "a cat"))
    assert ("i", "a cat") not in later
    assert torch.equal(later.take(["j", "i"], ["ein \ud800"]), d[[1]][:, [1, 0]])
