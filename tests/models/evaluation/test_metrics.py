import pytest
from scipy.stats import binomtest, norm

from sds_clip.models.evaluation.metrics import Z, mean_of_shares, wilson


def test_z_is_the_normal_quantile() -> None:
    assert pytest.approx(norm.ppf(0.975), rel=1e-15) == Z


@pytest.mark.parametrize(
    ("right", "n"), [(0, 1), (1, 1), (0, 400), (400, 400), (35, 400), (1, 3), (7_000, 10_000)]
)
def test_wilson_equals_scipys(right: int, n: int) -> None:
    expected = binomtest(right, n).proportion_ci(0.95, method="wilson")
    assert wilson(right, n) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_wilson_as_worked_out_by_hand() -> None:
    # n = 4, p = 1/2: centre 1/2, half = z sqrt(1/16 + z^2 / 64) / (1 + z^2 / 4) = 0.35
    low, high = wilson(2, 4)
    assert (round(low, 4), round(high, 4)) == (0.15, 0.85)


@pytest.mark.parametrize(("right", "n"), [(0, 0), (3, 2), (-1, 4)])
def test_what_is_no_share_is_refused(right: int, n: int) -> None:
    with pytest.raises(ValueError, match="not a share"):
        wilson(right, n)


def test_a_mean_of_one_share_has_its_interval() -> None:
    assert mean_of_shares([(3, 10)]) == pytest.approx((0.3, *wilson(3, 10)))


def test_a_mean_weighs_shares_alike_whatever_they_are_of() -> None:
    mean, low, high = mean_of_shares([(1, 1), (0, 99)])
    assert mean == 0.5
    (lower, _), (_, upper) = wilson(1, 1), wilson(0, 99)
    # Only the first can be lower and only the second higher.
    assert low == pytest.approx(0.5 - (1 - lower) / 2)
    assert high == pytest.approx(0.5 + upper / 2)


def test_equal_shares_narrow_the_mean_by_the_root_of_their_number() -> None:
    _, low, high = mean_of_shares([(30, 100)] * 4)
    one_low, one_high = wilson(30, 100)
    assert 0.3 - low == pytest.approx((0.3 - one_low) / 2)
    assert high - 0.3 == pytest.approx((one_high - 0.3) / 2)


def test_no_shares_have_no_mean() -> None:
    with pytest.raises(ValueError, match="no shares"):
        mean_of_shares([])
