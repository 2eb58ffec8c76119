"""The simulation can fail: faults that are planted into the real code are found."""

import pytest

from sds_clip.app.store import transitions
from tests.simulation.planted import PLANTED, DoesNotApply, Planted
from tests.simulation.schedule import Simulation, told

QUICK = (
    "an attempt's fence is not checked",
    "a version is deleted though it is needed",
    "the alias moves before its job",
)
NAMES = [each.name for each in PLANTED]


def is_found(simulation: Simulation, fault: Planted, schedules: int) -> bool:
    with fault.applied():
        return any(simulation.run(seed).failure is not None for seed in range(schedules))


def test_nothing_is_lost_or_done_twice_in_250_more_schedules(simulated: Simulation) -> None:
    for seed in range(250, 500):
        assert told(simulated, seed) is None


@pytest.mark.parametrize("name", QUICK)
def test_planted_fault_is_found(simulated: Simulation, name: str) -> None:
    [fault] = [each for each in PLANTED if each.name.startswith(name)]
    assert is_found(simulated, fault, 150)


@pytest.mark.long
@pytest.mark.parametrize("fault", PLANTED, ids=NAMES)
def test_every_planted_fault_is_found(simulated: Simulation, fault: Planted) -> None:
    """Minutes together: most are found within 50 schedules."""
    assert is_found(simulated, fault, 2_000)


@pytest.mark.parametrize("fault", PLANTED, ids=NAMES)
def test_planted_fault_applies_to_the_code(fault: Planted) -> None:
    """Else it tells nothing, and has to be written anew for the code as it is."""
    with fault.applied():
        pass


def test_planted_fault_whose_function_was_renamed_or_changed_says_so() -> None:
    renamed = Planted("it", transitions, "leased_job_of", "job.fence", "1")
    changed = Planted("it", transitions, "leased_job", "job.token != lease.token", "False")
    for fault in (renamed, changed):
        with pytest.raises(DoesNotApply, match="it:"), fault.applied():
            pass
