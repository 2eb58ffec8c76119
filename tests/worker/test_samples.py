"""The histograms that a check counts."""

import numpy as np
import pytest

from sds_clip.worker.samples import BINS, histogram, statistics


def test_words_of_captions_and_longer_sides_are_counted_by_hand() -> None:
    assert statistics([["a dog", "one two  three"], [], ["\tone\n"]], [5, 5, 7]) == {
        "caption_words": {"edges": [1, 2, 3, 4], "counts": [1, 1, 1]},
        "image_longer_side": {"edges": [5, 6, 7, 8], "counts": [2, 0, 1]},
    }


def test_without_values_there_is_no_histogram() -> None:
    assert statistics([[]], []) == {"caption_words": None, "image_longer_side": None}


@pytest.mark.parametrize("seed", range(20))
def test_every_value_is_in_one_of_few_equal_bins_and_the_last_has_the_highest(seed: int) -> None:
    random = np.random.default_rng(seed)
    values = random.integers(0, random.integers(1, 10_000), random.integers(1, 3000))
    found = histogram(values.tolist())
    assert found is not None
    edges, counts = found["edges"], found["counts"]
    assert len(counts) == len(edges) - 1 <= BINS
    assert sum(counts) == len(values)
    assert len(set(np.diff(edges[:-1]))) <= 1
    for low, high, count in zip(edges[:-1], edges[1:], counts, strict=True):
        assert count == sum(low <= value < high for value in values.tolist())


def test_one_large_value_does_not_hide_the_others() -> None:
    found = histogram([*range(5, 25)] * 10 + [100_000])
    assert found is not None
    assert found["edges"][:3] == [5, 6, 7]
    assert found["edges"][-1] == 100_001
