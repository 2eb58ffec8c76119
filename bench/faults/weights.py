"""Faults after which a service might serve weights that were not promoted.

It starts without its database, with an empty state, or with a damaged file of the promoted version.
"""

import shutil
import signal
import time
from random import Random

import httpx

from bench.faults.injections import Injected, submitted
from bench.faults.parts import Service
from bench.faults.storage import corrupt
from bench.faults.system import System
from sds_clip.app.store.states import JobStatus


def service_starts_without_its_database(system: System, random: Random) -> Injected:
    """One service is killed while the database is away; it must serve the same version as before."""
    version, victim = _promoted(system, random), random.choice(system.services)
    with system.database_away("cut"):
        _kill(victim)
        system.until(lambda: victim.version() == version, "the version as before")
    return _submitted_again(system, victim, random)


def service_starts_with_an_empty_state(system: System, random: Random) -> Injected:
    """One service has lost its state and starts while the database is away; it must serve nothing."""
    _promoted(system, random)
    victim = random.choice(system.services)
    with system.database_away("cut"):
        _kill(victim)
        shutil.rmtree(victim.state_dir)
        system.until(lambda: victim.get("/ready"), "an answer")
        answer = victim.get("/ready")
        assert answer is not None
        assert answer.status_code == httpx.codes.SERVICE_UNAVAILABLE
        assert answer.json()["error"]["code"] == "registry_away"
        assert victim.version() is None
    return _submitted_again(system, victim, random)


def promoted_version_is_damaged(system: System, random: Random) -> Injected:
    """A byte of the version's file changes and one service restarts; it must serve its own copy."""
    version, victim = _promoted(system, random), random.choice(system.services)
    system.scores_of(version)  # while it can be loaded
    file = system.config.versions_dir / version / "delta.safetensors"
    content = file.read_bytes()
    corrupt(file, random)
    _kill(victim)
    system.until(lambda: victim.version() == version, "the version as before")
    system.until(lambda: system.store.versions.get(version).damaged_at, "its record")
    file.write_bytes(content)
    return Injected(submitted(system, random), time.time())


def _promoted(system: System, random: Random) -> str:
    """Train and promote a version, and wait until every service serves it."""
    job = submitted(system, random)
    system.until_recovered(job)
    assert system.job(job).status is JobStatus.SUCCEEDED, system.job(job).error
    return system.store.aliases.get("default").version


def _submitted_again(system: System, victim: Service, random: Random) -> Injected:
    """Submit a job once the service has found its database, which it looks for every two seconds."""

    def has_database() -> bool:
        answer = victim.get("/jobs")
        return answer is not None and answer.is_success

    system.until(has_database, "the database found")
    return Injected(submitted(system, random), time.time())


def _kill(service: Service) -> None:
    service.send(signal.SIGKILL)
    service.process.wait()
