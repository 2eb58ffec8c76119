"""A broker that forgets, and a broker and a database that are away for a while."""

import contextlib
import shutil
import sqlite3
import time
from collections.abc import Callable, Iterator
from random import Random

import redis

from tests.databases import held
from tests.faults.injected import Injected, begun, submitted
from tests.faults.system import System

OUTAGE_S = 10.0


def broker_is_wiped(system: System, random: Random) -> Injected:
    """What it holds, and then its files."""
    job = submitted(system, random)
    with contextlib.closing(redis.Redis(unix_socket_path=str(system.valkey.socket))) as client:
        client.flushall()
    system.kill_valkey()
    shutil.rmtree(system.valkey_folder / "appendonlydir")
    return Injected(job, time.time())


def broker_is_cut(system: System, random: Random) -> Injected:
    """Connections close, and new ones are refused."""
    system.broker.cut()
    return _submitted_meanwhile(system, random, system.broker.heal)


def broker_stalls(system: System, random: Random) -> Injected:
    """Connections stay, and nothing comes through."""
    system.broker.stall()
    return _submitted_meanwhile(system, random, system.broker.heal)


def database_is_cut(system: System, random: Random) -> Injected:
    """With a job at work."""
    assert system.database is not None
    job = begun(system, random)
    system.database.cut()
    return _over(system, job, system.database.heal)


def database_stalls(system: System, random: Random) -> Injected:
    """With a job at work: PostgreSQL says nothing any more, or SQLite's file is locked by somebody."""
    job = begun(system, random)
    if system.database is not None:
        system.database.stall()
        return _over(system, job, system.database.heal)
    file = system.database_url.removeprefix("sqlite:///")
    with contextlib.closing(sqlite3.connect(file, isolation_level=None, timeout=60)) as blocker:
        blocker.execute("BEGIN EXCLUSIVE")
        return _over(system, job, lambda: blocker.execute("ROLLBACK"))


@contextlib.contextmanager
def database_away(system: System) -> Iterator[None]:
    """While connections to PostgreSQL are refused, or somebody holds SQLite's file."""
    if system.database is not None:
        system.database.cut()
        try:
            yield
        finally:
            system.database.heal()
        return
    with held(system.database_url, timeout_s=60):
        yield


def _over(system: System, job: str, heal: Callable[[], object]) -> Injected:
    """Wait, and see that the job had not ended before."""
    began = time.time()
    time.sleep(OUTAGE_S)
    heal()
    at, ended_at = time.time(), system.job(job).finished_at
    assert ended_at is None or ended_at > began, "it had ended"
    return Injected(job, at)


def _submitted_meanwhile(system: System, random: Random, heal: Callable[[], None]) -> Injected:
    try:
        job = submitted(system, random)
        time.sleep(OUTAGE_S)
    finally:
        heal()
    return Injected(job, time.time())
