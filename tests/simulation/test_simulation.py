"""Schedules by their seeds: nothing is lost, done twice or answered wrongly, and a failure can be seen again.

The other half of the quick ones is in test_planted.py, so that two processes share them.
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import pytest

from tests.simulation.planted import PLANTED
from tests.simulation.schedule import Simulation, failures, told
from tests.simulation.shrink import shrink

LONG, AT_ONCE = 100_000, 2_000


def test_nothing_is_lost_or_done_twice_in_250_schedules(simulated: Simulation) -> None:
    for seed in range(250):
        assert told(simulated, seed) is None


@pytest.fixture(scope="module")
def processes() -> Iterator[ProcessPoolExecutor]:
    with ProcessPoolExecutor(2, get_context("spawn")) as pool:
        yield pool


@pytest.mark.long
@pytest.mark.parametrize("first", range(0, LONG, AT_ONCE))
def test_nothing_is_lost_or_done_twice_in_100_000_schedules(
    processes: ProcessPoolExecutor, first: int
) -> None:
    """Two hours on two cores. A part that has passed need not be repeated: -k 'schedules[4000]'."""
    half = first + AT_ONCE // 2
    found = list(processes.map(failures, (first, half), (half, first + AT_ONCE)))
    assert found == [None, None]


def test_seed_gives_the_same_schedule_in_any_process(simulated: Simulation) -> None:
    """Also where sets of names have another order."""
    here = simulated.run(7, trace=True)
    assert simulated.run(7, trace=True).trace == here.trace
    command = [sys.executable, "-m", "tests.simulation", "7", "--trace"]
    there = subprocess.run(
        command, env={**os.environ, "PYTHONHASHSEED": "4711"}, capture_output=True, text=True, check=True
    )
    assert there.stdout.splitlines()[:-1] == list(here.trace)


def test_schedule_that_fails_is_shrunk_to_one_that_fails_alone(simulated: Simulation) -> None:
    [fault] = [each for each in PLANTED if each.name == "a version is deleted though it is needed"]
    with fault.applied():
        seed = next(seed for seed in range(200) if simulated.run(seed).failure is not None)
        text = told(simulated, seed)
        made = simulated.run(seed).made
        few = shrink(made, lambda fewer: simulated.run(seed, fewer).failure is not None)
        assert simulated.run(seed, few).failure is not None
    assert text is not None
    assert f"python -m tests.simulation {seed}" in text
    assert "was deleted, and" in text
    assert len(few) < len(made) / 2
    assert simulated.run(seed, few).failure is None


def test_choices_that_a_failure_does_not_need_are_left_out() -> None:
    made = dict.fromkeys(range(100), 1)
    assert shrink(made, lambda kept: kept.keys() >= {3, 42, 97}) == {3: 1, 42: 1, 97: 1}
