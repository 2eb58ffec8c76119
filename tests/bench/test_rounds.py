import os

import pytest

from bench.child import call
from bench.rounds import in_turns


def test_contestants_alternate_and_the_warm_up_does_not_count() -> None:
    order: list[str] = []

    def contestant(name: str) -> int:
        order.append(name)
        return len(order)

    found = in_turns("", 2, {name: lambda name=name: contestant(name) for name in "ab"}, warm_up=True)

    assert order == ["b", "a", "a", "b", "b", "a"]
    assert found == {"a": [3, 6], "b": [4, 5]}


def test_work_of_a_child_has_its_environment_and_says_why_it_failed() -> None:
    assert call(os.getenv, "BENCHED", environment={"BENCHED": "yes"}) == "yes"
    assert call(os.getpid) != os.getpid()
    with pytest.raises(RuntimeError, match="FileNotFoundError"):
        call(os.stat, "/nowhere")
