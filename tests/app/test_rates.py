"""Items a second of each key, by a clock that the test moves."""

import pytest

from sds_clip.app.budgets import Rate
from sds_clip.app.errors import KeyLimitReached

LIMIT = "max_items_per_s_per_key"


class Clock:
    """A clock that stands still until the test moves it."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_second_holds_as_many_items_as_the_limit_says() -> None:
    clock = Clock()
    rates = Rate(10, LIMIT, clock=clock)

    for _ in range(5):
        rates.spend("alice", 2)
    with pytest.raises(KeyLimitReached, match="max_items_per_s_per_key, which is 10") as refused:
        rates.spend("alice", 1)
    assert (refused.value.status, refused.value.code, refused.value.retry_after_s) == (429, "key_limit", 1)
    clock.now += 0.5
    rates.spend("alice", 5)
    with pytest.raises(KeyLimitReached):
        rates.spend("alice", 1)


def test_larger_request_is_accepted_and_the_next_ones_wait_for_it() -> None:
    clock = Clock()
    rates = Rate(10, LIMIT, clock=clock)

    rates.spend("alice", 45)
    with pytest.raises(KeyLimitReached) as refused:
        rates.spend("alice", 1)
    assert refused.value.retry_after_s == 4  # 35 items at 10 a second
    clock.now += 4
    rates.spend("alice", 1)


def test_what_was_not_used_is_not_saved_up() -> None:
    clock = Clock()
    rates = Rate(10, LIMIT, clock=clock)
    rates.spend("alice", 1)

    clock.now += 3600
    rates.spend("alice", 10)
    with pytest.raises(KeyLimitReached):
        rates.spend("alice", 1)


def test_keys_do_not_share_and_without_a_key_nothing_is_limited() -> None:
    rates = Rate(10, LIMIT, clock=Clock())

    for key in ("alice", "bob", "", "", ""):
        rates.spend(key, 10)


def test_an_amount_is_taken_in_any_case_and_its_debt_is_told() -> None:
    clock = Clock()
    rates = Rate(10, LIMIT, clock=clock)

    assert rates.owe("alice", 10) == 0
    assert rates.owe("alice", 5) == 0.5
    assert rates.owe("alice", 5) == 1
    clock.now += 0.5
    assert rates.owe("alice", 10) == 1.5
    assert rates.owe("", 1000) == 0
