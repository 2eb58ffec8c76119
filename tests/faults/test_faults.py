"""A short selection of the faults; `make faults` puts in all of them, many times."""

import os
from collections.abc import Iterator

import pytest

from tests.faults.checks import Findings, check
from tests.faults.kinds import KINDS, try_out
from tests.faults.system import System, make_inputs, running_system

SELECTED = {
    "service killed after commit, before publish": 11,
    "trainer killed after rename, before the row": 12,
    "newest checkpoint corrupted": 13,
}
"""Kinds of faults and their seeds."""


pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    folder = tmp_path_factory.mktemp("faults")
    # Without processes that wait for a job: they are most of the time that the tests take.
    with running_system(folder / "system", make_inputs(folder), keep_warm=False) as running:
        yield running


@pytest.mark.parametrize("name", SELECTED)
def test_nothing_is_lost_or_done_twice(name: str, system: System) -> None:
    kind = next(kind for kind in KINDS if kind.name == name)
    outcome = try_out(kind, system, SELECTED[name])
    assert outcome.findings == Findings()


def test_what_is_wrong_is_found(system: System) -> None:
    """A job that never ends, one that nobody was told of, and a version that is damaged under its alias."""
    alias = system.store.aliases.get("default")
    folder = system.store.versions.get(alias.version).folder
    assert folder is not None
    os.truncate(system.data_dir / folder / "delta.safetensors", 10)
    for worker in system.workers:
        worker.stop()
    waiting = system.submit(1)
    system.submit(2)
    system.accepted.pop()
    findings = check(system)
    assert [text.split()[0] for text in findings.lost] == [waiting]
    assert len(findings.duplicated) == 1
    assert "delta.safetensors" in findings.broken[0]
