"""One fault; `make test-long` puts in all of them, and `make faults` many times."""

import os
import time
from collections.abc import Iterator
from random import Random

import httpx
import pytest

from bench.faults.checks import Findings, check
from bench.faults.injections import begun
from bench.faults.kinds import KINDS, try_out
from bench.faults.system import System, make_inputs, running_system
from tests.postgres import PostgreSQL

SELECTED = (("sqlite", "newest checkpoint corrupted", 13),)
"""Databases, kinds of faults and their seeds."""
EVERY = (
    *(("postgresql", kind.name, seed) for seed, kind in enumerate(KINDS)),
    ("sqlite", "service killed after commit, before publish", 11),
)
MINUTE_S = 60.0

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def system(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """One for each database."""
    postgresql = request.getfixturevalue("postgresql") if request.param == "postgresql" else None
    folder = tmp_path_factory.mktemp("faults")
    # Without processes that wait for a job: they are most of the time that the tests take.
    with running_system(folder / "system", make_inputs(folder), postgresql, keep_warm=False) as running:
        yield running


@pytest.mark.parametrize(("system", "name", "seed"), SELECTED, indirect=["system"], scope="module")
def test_nothing_is_lost_or_done_twice(system: System, name: str, seed: int) -> None:
    kind = next(kind for kind in KINDS if kind.name == name)
    outcome = try_out(kind, system, seed)
    assert outcome.findings == Findings()


@pytest.mark.long
@pytest.mark.parametrize(("system", "name", "seed"), EVERY, indirect=["system"], scope="module")
def test_after_every_kind_of_fault_nothing_is_lost_or_done_twice(
    system: System, name: str, seed: int
) -> None:
    test_nothing_is_lost_or_done_twice(system, name, seed)


@pytest.mark.long
@pytest.mark.parametrize("system", ["postgresql"], indirect=True)
def test_database_stopped_for_a_minute_costs_no_answer_and_no_job(
    system: System, postgresql: PostgreSQL
) -> None:
    """The server is really stopped, for many leases. A job runs, and pictures are matched all the time."""
    job, began = begun(system, Random(1)), time.time()
    postgresql.stop()
    try:
        while time.time() < began + MINUTE_S:
            assert all(service.version() for service in system.services)
            time.sleep(0.5)
        with pytest.raises(httpx.HTTPStatusError) as refused:
            system.submit(1)
        assert refused.value.response.status_code == httpx.codes.SERVICE_UNAVAILABLE
        assert "Retry-After" in refused.value.response.headers
    finally:
        postgresql.start()
    system.until_recovered(job)
    assert system.job(job).interruptions > 0
    assert check(system) == Findings()
    assert [each for caller in system.callers for each in caller.refused_since(began)] == []


@pytest.mark.parametrize("system", ["sqlite"], indirect=True)
def test_what_is_wrong_is_found(system: System) -> None:
    """A job that never ends, one that nobody was told of, and a version that is damaged under its alias."""
    alias = system.store.aliases.get("default")
    folder = system.store.versions.get(alias.version).folder
    assert folder is not None
    system.scores_of(alias.version)  # while it can be loaded
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
