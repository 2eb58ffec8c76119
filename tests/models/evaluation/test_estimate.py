"""The estimate over samples and items against the t test, and by simulation."""

import numpy as np
import pytest
from scipy.stats import ttest_1samp

from sds_clip.models.evaluation.estimate import estimate


def test_an_estimate_over_samples_alone_is_the_t_test() -> None:
    by_sample = np.array([3.0, 5.0, 4.0, 8.0])
    found, expected = estimate(by_sample.reshape(4, 1, 1)), ttest_1samp(by_sample, 0)
    assert found.p == pytest.approx(expected.pvalue)
    low, high = expected.confidence_interval(0.9)
    assert (found.interval(0.9).low, found.interval(0.9).high) == pytest.approx((low, high))


@pytest.mark.parametrize("of_items", [0.2, 1.0, 5.0])
def test_an_estimate_is_not_surer_than_new_samples_and_new_items_let_it_be(of_items: float) -> None:
    """Without a difference, at most 0.25 % of the tests say that there is one, as Holm's first of four at 1 %."""
    rng, tests, wrong = np.random.default_rng(0), 10_000, 0
    for _ in range(tests):
        noise = rng.normal(size=(4, 1, 1)) + of_items * rng.normal(size=(1, 1, 20))
        wrong += estimate(noise).p < 0.0025
    assert wrong / tests < 0.0025 + 4 * (0.0025 / tests) ** 0.5


def test_one_sample_has_no_standard_error_and_no_difference_at_all_has_no_p_below_1() -> None:
    with pytest.raises(ValueError, match="two samples"):
        estimate(np.ones((1, 2, 3)))
    assert estimate(np.zeros((4, 2, 3))).p == 1
