from collections.abc import Iterator

import pytest

from tests.simulation.schedule import Simulation, simulation


@pytest.fixture(scope="module")
def simulated() -> Iterator[Simulation]:
    with simulation() as made:
        yield made
