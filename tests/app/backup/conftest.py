from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.app.backup.contents import Made, System
from tests.databases import KINDS, Databases

MakeSystem = Callable[[str], System]


@pytest.fixture
def make_system(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[MakeSystem]:
    """Makes systems on a database of a kind, without tables, and a data folder that does not exist yet."""
    made: list[System] = []

    def make(kind: str) -> System:
        databases: Databases = request.getfixturevalue(f"{kind}_databases")
        made.append(System(databases.url(databases.empty()), tmp_path / f"data-{len(made)}"))
        return made[-1]

    yield make
    for system in made:
        system.close()


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def system(make_system: MakeSystem, kind: str) -> System:
    return make_system(kind)


@pytest.fixture
def made(system: System) -> Made:
    """Fills the system."""
    return system.fill()


@pytest.fixture
def empty(make_system: MakeSystem, kind: str) -> System:
    """A system to restore into."""
    return make_system(kind)
