"""One schedule from its beginning to its end: trouble for some minutes, then rest, in which all has to settle."""

import itertools
import logging
import shutil
import sqlite3
import tempfile
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest

import sds_clip.app.store
from sds_clip.app import data_folder, removal, threads
from sds_clip.app.data_folder import DataFolder
from sds_clip.app.registry import local_state, publish
from sds_clip.app.retention import sweep
from sds_clip.app.retention.policy import Rules
from sds_clip.app.serving import served_models, swap
from sds_clip.app.store import Store, datasets, jobs
from sds_clip.app.store.records import Lease, NewVersion
from sds_clip.app.store.states import JobStatus
from sds_clip.app.store.tables import metadata
from sds_clip.models import atomic
from sds_clip.worker import context, job_process, lease_keeper, periodic, reaper, reporter, slot
from sds_clip.worker.config import WorkerConfig
from tests.memory import memory_folder
from tests.simulation import actors, faults, scheduler, serving
from tests.simulation.actors import Operator, World
from tests.simulation.invariants import Ledger
from tests.simulation.scheduler import Broken, Choices, Scheduler
from tests.simulation.shrink import shrink

JOBS, WORKERS, CLEANERS = 3, 2, 2
TROUBLE_S, REST_S = 120.0, 6000.0
CLEANS_FOR_S = 30.0
"""How long a lease on a cleanup lasts."""
LATER_S = 1000.0
"""Then all that has ended is old, and nobody who lives has a lease on a cleanup."""
BASE = "0" * 64
_WEIGHTS = {"ben": 2.0}
_TABLES = [table.name for table in reversed(metadata.sorted_tables)]


@dataclass(frozen=True)
class Outcome:
    """How a schedule has ended."""

    failure: Broken | None
    made: Mapping[int, int]
    """Its choices other than 0, by their positions."""
    trace: tuple[str, ...]


class Simulation:
    """Runs schedules one after the other, over one database in memory."""

    def __init__(self, folder: Path, replaced: pytest.MonkeyPatch) -> None:
        self._folder = folder
        self._ids = itertools.count(1)
        self._now = lambda: scheduler.BEGINNING
        self._replace_modules(replaced)
        self._store = Store(faults.URL, clock=lambda: self._now())
        assert isinstance(self._store.database, faults.FaultyDatabase)
        self._database = self._store.database
        self._looking = sqlite3.connect(
            faults.URL.removeprefix("sqlite:///").replace("%25", "%"), uri=True, isolation_level=None
        )
        renew = self._store.leases.renew
        replaced.setattr(
            self._store.leases, "renew", lambda lease, ttl_s: self._renewed(lease, renew(lease, ttl_s))
        )
        self._store.migrate()

    def close(self) -> None:
        self._store.close()
        self._looking.close()

    def run(self, seed: int, forced: Mapping[int, int] | None = None, *, trace: bool = False) -> Outcome:
        """Run the schedule of a seed, or with `forced` one of which only these choices are kept."""
        choices = Choices(seed, forced)
        world = self._world(choices, faults.MANNERS[seed % len(faults.MANNERS)])
        world.scheduler.trace = [] if trace else None
        failure = None
        try:
            self._begin(world)
            world.scheduler.run(lambda: world.scheduler.now > TROUBLE_S)
            self._settle(world)
            world.ledger.at_the_end()
            # A cleanup that is held up in the middle would extend its lease, and the last one would do nothing.
            for number in range(CLEANERS):
                world.alive[f"cleanup {number}"].end()
            world.scheduler.skew_s += LATER_S
            cleanup = world.process("last cleanup").start(lambda: actors.reaper(world).sweep())
            world.scheduler.run(cleanup.finished.is_set)
            world.ledger.cleaned_up()
        except Broken as broken:
            failure = broken
        finally:
            world.scheduler.close()
            serving.served.clear()
            shutil.rmtree(world.config.data_dir, ignore_errors=True)
        return Outcome(failure, choices.made, tuple(world.scheduler.trace or ()))

    def _world(self, choices: Choices, rates: tuple[float, ...]) -> World:
        data_dir = self._folder / "data"
        data_dir.mkdir()
        self._ids = itertools.count(1)
        for table in _TABLES:
            self._looking.execute(f"DELETE FROM {table}")
        runs = Scheduler(choices)
        self._now = runs.clock
        yields = choices.pick((False, True))
        failing = faults.Faults(runs, *((faults.GENTLE, faults.GENTLE_TO_FILES) if yields else (rates,)))
        config = _config(data_dir, yields)
        failing.are_off = True
        self._database.faults = failing
        self._database.committed = lambda: None
        self._store.versions.register(NewVersion(BASE, None, {"reference": "demo"}, 1))
        DataFolder(self._store.database, data_dir).check()
        ledger = Ledger(runs, self._looking, config, BASE)
        failing.are_off = False
        self._database.committed = ledger.committed
        for name, function in faults.files(failing, ledger.moves).items():
            setattr(self._files, name, function)
        world = World(runs, choices, failing, self._store, ledger, config, yields)
        self._running = world
        return world

    def _begin(self, world: World) -> None:
        for number in range(WORKERS):
            world.kept_alive(f"worker {number}", partial(actors.work, world))
            world.scheduler.now += 0.3
        for number in range(CLEANERS):
            world.kept_alive(f"cleanup {number}", partial(actors.clean_up, world))
        world.kept_alive("server", partial(serving.serve, world, "server"))
        for number in range(JOBS):
            client = world.process(f"client {number}")
            world.asking.append(client.start(partial(self._submit, world, number)))
        world.asking.append(world.process("operator").start(Operator(world).run))
        if world.choices.pick((False, False, True)):
            power = world.process("power")
            power.is_mortal = False
            power.start(partial(actors.cut_power, world))

    def _submit(self, world: World, number: int) -> None:
        world.scheduler.sleep(number * (5.0 if world.yields else world.choices.pick((7.0, 0.1, 20.0))))
        actors.submit(world, number)

    def _settle(self, world: World) -> None:
        """Nothing fails any more, paused jobs go on, and all has to come to an end."""
        world.is_over = world.faults.are_off = True
        rest = world.process("rest")
        rest.is_mortal = False

        def resume() -> None:
            while True:
                Operator(world)._resume()
                world.scheduler.sleep(30.0)

        rest.start(resume)
        until = world.scheduler.now + REST_S

        def is_settled() -> bool:
            if world.scheduler.now > until:
                return True
            has_asked = all(each.finished.is_set() for each in world.asking)
            return has_asked and world.ledger.has_settled() and serving.has_caught_up(world)

        world.scheduler.run(is_settled)
        if not serving.has_caught_up(world):
            world.ledger.broken("A process does not serve what the aliases point to.")

    def _replace_modules(self, replaced: pytest.MonkeyPatch) -> None:
        """Let the code run on the schedule's clock, threads, files and ids. What has another name by now raises."""
        set_ = replaced.setattr
        for module in (slot, lease_keeper, reporter, context, job_process, swap, local_state):
            set_(module, "time", scheduler.time)
        for module in (periodic, slot, reporter, threads, local_state):
            set_(module, "threading", scheduler.threading)
        set_(lease_keeper, "os", SimpleNamespace(_exit=lambda code: scheduler.current().process.exit(code)))
        own = SimpleNamespace(getpid=lambda: scheduler.current().process.pid)
        for module in (slot, reaper):
            set_(module, "os", own)
        set_(sds_clip.app.store, "Database", faults.FaultyDatabase)
        set_(job_process, "Store", lambda url, timeout_s: self._store)
        set_(job_process, "ended_in_time", _never_ended)
        set_(slot, "ChildProcess", lambda command: actors.Child(self._running))
        set_(served_models, "to_serve", lambda clip: clip)
        set_(publish, "_of_full", lambda source: (_version_in(source), None, {}))
        set_(swap, "POLL_S", serving.POLL_S)
        for module, name in ((reaper, "SWEEP_EVERY_S"), (sweep, "TTL_S")):
            set_(module, name, CLEANS_FOR_S)
        set_(periodic, "logger", SimpleNamespace(exception=self._failed_in_the_background))
        for module in (jobs, datasets):
            set_(module, "new_id", lambda prefix: f"{prefix}_{next(self._ids)}")
        for module in (removal, atomic):
            set_(module, "secrets", SimpleNamespace(token_hex=lambda size: f"{next(self._ids):08x}"))
        self._files = SimpleNamespace()
        moving = SimpleNamespace(rename=lambda *paths: self._files.rename(*paths))
        removing = SimpleNamespace(
            rmtree=lambda path, **options: self._files.rmtree(path, **options), copyfile=shutil.copyfile
        )
        for module in (removal, publish):
            set_(module, "os", moving)
            set_(module, "shutil", removing)
        writing = local_state.write_atomic
        set_(local_state, "write_atomic", lambda *content: self._files.step(writing)(*content))
        set_(data_folder, "time", SimpleNamespace(monotonic=lambda: 0.0))

    def _renewed(self, lease: Lease, status: JobStatus | None) -> JobStatus | None:
        told = lease.job_id, lease.fence
        if status is None and scheduler.current().process.lease == told:  # and not its supervisor
            self._running.ledger.lost.add(told)
        return status

    def _failed_in_the_background(self, message: str, *arguments: object) -> None:
        self._running.scheduler.fail(message % arguments)


def told(simulation: Simulation, seed: int) -> str | None:
    """Run the schedule of a seed. If it fails, tell what happens in a short one that does too."""
    outcome = simulation.run(seed)
    if outcome.failure is None:
        return None
    made = shrink(outcome.made, lambda fewer: simulation.run(seed, fewer).failure is not None)
    shrunk = simulation.run(seed, made, trace=True)
    lines = [
        f"Seed {seed}: {outcome.failure}",
        f"To run it again: python -m tests.simulation {seed}",
        f"With {len(made)} of its {len(outcome.made)} choices, {dict(made)}: {shrunk.failure}",
        *shrunk.trace,
    ]
    for failure in (outcome.failure, shrunk.failure):
        if failure is not None and failure.__cause__ is not None:
            lines += traceback.format_exception(failure.__cause__)
    return "\n".join(lines)


def failures(first: int, end: int) -> str | None:
    """What the first schedule that fails tells, of those of some seeds, in a process of its own."""
    with simulation() as made:
        return next((text for seed in range(first, end) if (text := told(made, seed)) is not None), None)


@contextmanager
def simulation() -> Iterator[Simulation]:
    """A simulation, while which this process runs nothing else."""
    logging.disable(logging.CRITICAL)
    try:
        with (
            tempfile.TemporaryDirectory(dir=memory_folder(2**25)) as folder,
            pytest.MonkeyPatch.context() as replaced,
        ):
            made = Simulation(Path(folder), replaced)
            try:
                yield made
            finally:
                made.close()
    finally:
        logging.disable(logging.NOTSET)


def _config(data_dir: Path, yields: bool) -> WorkerConfig:
    return WorkerConfig(
        broker_url="",
        database_url="",
        data_dir=data_dir,
        queue="finetune",
        keep_warm=False,
        lease_ttl_s=60.0,
        watch_every_s=3.0 if yields else 15.0,
        report_every_s=4.0,
        idle_tick_s=10.0 if yields else 20.0,
        share_weights=_WEIGHTS,
        max_turn_s=8.0 if yields else 30.0,
        keep_files_s=60.0,
        retention=Rules(keep_jobs_s=60.0, keep_versions_s=60.0, keep_datasets_s=60.0, keep_rollbacks=1),
    )


@contextmanager
def _never_ended(signals: object, end: object) -> Iterator[None]:
    yield


def _version_in(source: Path) -> str:
    return actors.version_of((source / "open_clip_config.json").read_text())
