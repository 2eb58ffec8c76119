from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.app.backup.contents import Made, System
from tests.app.store.conftest import FakeClock
from tests.databases import KINDS, Databases


@pytest.fixture(params=KINDS)
def system(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[System]:
    """A system that was last used years ago."""
    databases: Databases = request.getfixturevalue(f"{request.param}_databases")
    made = System(databases.url(databases.empty()), tmp_path / "data", clock=FakeClock())
    yield made
    made.close()


@pytest.fixture
def made(system: System) -> Made:
    return system.fill()
