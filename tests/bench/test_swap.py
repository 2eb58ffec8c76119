"""Which requests belong to a swap."""

import pytest

from bench.load import Answer
from bench.swap import Move, is_in_a_swap


@pytest.mark.parametrize(
    ("at", "seconds", "is_in"),
    [
        (98.9, 5.0, False),  # it waits while the alias moves; but long ones do so more often
        (99.0, 0.1, True),
        (102.9, 0.1, True),
        (103.0, 0.1, False),
        (202.0, 9.0, True),
    ],
)
def test_request_belongs_to_a_swap_by_its_arrival_alone(at: float, seconds: float, is_in: bool) -> None:
    moves = [Move(100.0, "a", 100.2), Move(200.0, "b", None)]
    assert is_in_a_swap(Answer(0, at, seconds, "200", ""), moves) is is_in
