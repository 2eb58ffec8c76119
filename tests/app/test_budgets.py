"""A budget refuses by name what a key or all together would have too much of, and then takes nothing."""

import pytest

from sds_clip.app.budgets import Budget
from sds_clip.app.errors import BuffersFull, KeyLimitReached, Overloaded, ServiceError


def test_refusal_names_the_limit_of_the_key_or_what_there_is_too_much_of_and_takes_nothing() -> None:
    budget = Budget(5, "things", limit="max_things_per_key", per_key=3, retry_after_s=lambda: 7)
    budget.take(3, "alice")

    with pytest.raises(KeyLimitReached, match="max_things_per_key, which is 3") as refused:
        budget.take(1, "alice")
    assert refused.value.retry_after_s == 7
    with pytest.raises(Overloaded, match=r"no more things at the moment \(in progress: 3\)"):
        budget.take(3, "bob")
    budget.take(2, "bob")
    assert budget.used == 5
    for key in ("bob", "alice"):
        budget.give_back(2, key)
    budget.take(3, "bob")
    assert budget.used == 4


def test_full_budget_has_the_error_of_what_it_is_for() -> None:
    def full(used: int, total: int) -> ServiceError:
        return BuffersFull(f"{used} of {total}")

    budget = Budget(5, full=full)
    budget.take(4)
    with pytest.raises(BuffersFull, match="4 of 6"):
        budget.take(3, more=1)
    budget.take(2, more=1)


def test_without_a_total_only_keys_are_limited() -> None:
    budget = Budget(None, limit="max_things_per_key", per_key=1)
    budget.take(1000)
    budget.take(1, "alice")
    with pytest.raises(KeyLimitReached):
        budget.take(1, "alice")
    assert budget.used == 1001


def test_any_amount_is_let_in_first_where_that_is_said() -> None:
    budget = Budget(5, limit="max_things_per_key", per_key=3, any_first=True)
    budget.take(9, "alice")
    with pytest.raises(KeyLimitReached):
        budget.take(1, "alice")
    with pytest.raises(Overloaded):
        budget.take(1, "bob")
    budget.give_back(9, "alice")
    budget.take(9, "bob")
