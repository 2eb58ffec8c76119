"""Who takes part: a service that submits, workers with the processes of their jobs, an operator, a cleanup.

The slot, the job's process, its lease keeper and reporter, the reaper and the sweeper are the real ones. A job's work
is made up: steps that take seconds, checkpoints, weights of a few bytes.
"""

import contextlib
import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from types import SimpleNamespace
from typing import Any

from sds_clip.app.errors import (
    AliasLocked,
    AliasMoved,
    MissingScope,
    ServiceError,
    StoreUnavailable,
    UnusableRecord,
    VersionGone,
)
from sds_clip.app.registry.publish import publish
from sds_clip.app.removal import remove_job_files, remove_version_files
from sds_clip.app.schemas.datasets import PAIRS
from sds_clip.app.store import Store
from sds_clip.app.store.records import Move, NewJob, NewVersion
from sds_clip.app.store.states import JobKind, JobStatus
from sds_clip.app.store.verdicts import check_of, dataset_of
from sds_clip.models.run_files import CHECKPOINTS, DESCRIPTION_FILE, TENSORS_FILE, checkpoint_name
from sds_clip.worker import job_process
from sds_clip.worker.config import WorkerConfig
from sds_clip.worker.context import JobContext, StopFlag
from sds_clip.worker.enlisting import enlist
from sds_clip.worker.errors import JobFailed
from sds_clip.worker.periodic import Periodic
from sds_clip.worker.promotion import decide
from sds_clip.worker.protocol import Assignment
from sds_clip.worker.reaper import Reaper
from sds_clip.worker.slot import Slot
from tests.simulation.faults import Faults
from tests.simulation.invariants import STEP_S, Ledger
from tests.simulation.scheduler import Choices, Event, Host, Process, Scheduler, Thread, current

ALIASES = ("default", "other")
OWNERS = ("anna", "ben")
FIT = SimpleNamespace(may_claim=lambda: True, note=lambda *ending: None, has_its_folder=True)
"""A worker that is always fit. Those that are not have tests of their own."""
UNMEASURED: Any = SimpleNamespace(
    begin=lambda: None,
    end=lambda *ending: None,
    watch=lambda *seen: None,
    removed=lambda *removed: None,
    slot=lambda *told: UNMEASURED,
)


@dataclass
class World:
    """What the actors of one schedule share."""

    scheduler: Scheduler
    choices: Choices
    faults: Faults
    store: Store
    ledger: Ledger
    config: WorkerConfig
    yields: bool
    """Whether the last job waits for those of another owner, and these have short turns. Else data are checked."""
    messages: list[str] = field(default_factory=list)
    """Jobs of whom the broker will tell a worker."""
    told: list[Event] = field(default_factory=list)
    alive: dict[str, Process] = field(default_factory=dict)
    """The processes that are started again, by their names."""
    asking: list[Thread] = field(default_factory=list)
    """Clients and the operator, who may still wait for the database when nothing new is asked for."""
    is_over: bool = False
    """Whether nothing new is asked for, and nothing fails any more."""

    def process(self, name: str, host: Host | None = None) -> Process:
        return Process(self.scheduler, name, host)

    def kept_alive(self, name: str, main: Callable[[Process], None]) -> None:
        """A process that is started again each time it has ended."""
        init = self.process(f"{name}'s init")
        init.is_mortal = False

        def watch() -> None:
            while True:
                self.alive[name] = process = self.process(name, Host())
                process.start(partial(main, process))
                process.ended.wait()
                self.scheduler.sleep(self.choices.pick((1.0, 10.0, 40.0)))

        init.start(watch)

    def publish(self, job_id: str) -> bool:
        """Send a message, which may be lost, come twice, or late. Returns whether the broker has taken it."""
        copies = self.choices.pick((1, 1, 1, 0, 2)) if not self.is_over else 1
        self.messages += [job_id] * copies
        for each in self.told:
            each.set()
        return not self.is_over and bool(self.choices.pick((1, 1, 1, 0)))


def cut_power(world: World) -> None:
    """End the serving process, which is started again before the database answers."""
    world.scheduler.sleep(world.choices.pick((60.0, 30.0, 90.0)))
    world.alive["server"].end()
    world.faults.away_until = world.scheduler.now + 90.0


def until_it_answers(world: World, act: Callable[[], Any]) -> Any:
    """What a client does that repeats its request while the database is away."""
    while True:
        try:
            return act()
        except StoreUnavailable:
            world.scheduler.sleep(1.0)


def submit(world: World, number: int) -> None:
    """Submit a job, and again until it is accepted."""
    pick = world.choices.pick
    weights = pick(("a", f"w{number}", "b"))
    owner, datasets = pick(OWNERS), ()
    if world.yields:
        owner = OWNERS[number // 2]
    elif (check := pick((None, "ready", None, "ready", "rejected", "dies"))) is not None:
        add = world.store.datasets.add
        added = until_it_answers(world, lambda: add(format=PAIRS, source={"check": check}, owner=owner))
        datasets = (added.id,)
    new = NewJob(
        JobKind.FINETUNE,
        {
            "weights": weights,
            "alias": pick(ALIASES),
            "promotes": pick((True, True, False)),
            "fails": pick((0, 0, 0, 1, 2)),
        },
        owner=owner,
        priority=pick((0, 0, 1)),
        max_attempts=pick((3, 3, 1)),
        max_interruptions=pick((40, 40, 1)),
        max_run_time_s=pick((2000.0, 2000.0, 40.0)),
        idempotency_key=f"key-{number}",
        versions=(world.ledger.base,),
        datasets=datasets,
    )
    try:
        job, _ = until_it_answers(world, lambda: world.store.jobs.submit(new))
    except UnusableRecord:  # its data set was rejected, or deleted
        return
    world.ledger.accepted(f"{new.owner} key-{number}", job.id)
    world.publish(job.id)


class Child:
    """A job's process as its supervisor sees it (`sds_clip.worker.supervised.ChildProcess`)."""

    def __init__(self, world: World) -> None:
        self._world = world
        supervisor = current().process
        self._supervisor = supervisor
        self._process = Process(world.scheduler, f"job of {supervisor.name}", supervisor.hosts[-1])
        supervisor.at_end.append(self._orphan)
        self._stopping = StopFlag()
        self._code: int | None = None
        self._last_step_at = world.scheduler.now
        self.pid = self._process.pid
        self.has_begun, self.done, self.device_bytes = False, 0, 0

    # What the job's process writes to the pipe (`sds_clip.worker.protocol.Ticks`).
    def begin(self) -> None:
        self.has_begun = True
        self.tick()

    def tick(self, done: int = 0) -> None:
        self._last_step_at = self._world.scheduler.now
        self.done = max(self.done, done)

    def memory(self, device_bytes: int) -> None:
        self.device_bytes = device_bytes

    def identify(self) -> None:
        """Nobody can find the process by its id. It ends with its supervisor, or when it wakes after that."""

    def assign(self, assignment: str) -> None:
        given = Assignment.loads(assignment)
        lease = given.lease.job_id, given.lease.fence
        process = self._process
        process.lease = current().lease = lease
        process.is_overtaken = lambda ended: self._world.ledger.is_overtaken(lease, ended)

        def exit(code: int) -> None:
            self._code = self._code if process.is_dead else code
            process.end()
            self._world.scheduler.sleep(0)  # it raises Killed

        process.exit = exit

        def main() -> None:
            self._world.scheduler.sleep(self._world.choices.pick((0.5, 3.0)))  # it imports what it needs
            # The module's own function: what stands around it is about pipes and signals.
            exit(job_process._work(given, self, self._stopping, lambda kind: partial_work(self._world)))

        self._process.start(main)

    def wait(self, timeout_s: float) -> int | None:
        if not self._process.is_dead and timeout_s:
            self._process.ended.wait(max(1.0, timeout_s))
        return self._ending

    @property
    def _ending(self) -> int | None:
        return (-9 if self._code is None else int(self._code)) if self._process.is_dead else None

    def stalled_s(self) -> float:
        return self._world.scheduler.now - self._last_step_at

    def ask_to_stop(self) -> None:
        self._stopping.set("its worker is shutting down")

    def kill(self) -> None:
        self._process.end()

    def close(self) -> None:
        self._process.end()
        if self._orphan in self._supervisor.at_end:
            self._supervisor.at_end.remove(self._orphan)

    def _orphan(self) -> None:
        """Its pipe has closed. It ends as soon as it runs."""
        if not self._process.is_dead:
            self._process.start(self._process.end)


def partial_work(world: World) -> Callable[[JobContext], None]:
    return lambda context: Work(world, context).run()


@dataclass
class Work:
    """What a job does in its process, between the real ends of the protocol."""

    world: World
    context: JobContext

    def run(self) -> None:
        if self.context.job.kind is JobKind.CHECK:
            self._check()
        else:
            self._train()

    def _check(self) -> None:
        """As `sds_clip.worker.check_job` ends a check."""
        world, context = self.world, self.context
        datasets, lease = world.store.datasets, context.lease
        dataset = datasets.get(dataset_of(context.job))
        context.stage("checking")
        world.scheduler.sleep(world.choices.pick((0.5, 6.0)))
        if dataset.source["check"] == "dies":
            raise RuntimeError("out of the blue")
        if dataset.source["check"] == "ready":
            moved = context.end(lambda: datasets.accept(lease, content_hash="", counts={}))
        else:
            moved = context.end(lambda: datasets.reject(lease, problems=[]))
        for job in moved:
            world.publish(job.id)

    def _train(self) -> None:
        world, context = self.world, self.context
        request, fence = context.job.request, context.job.fence
        step = context.folder.take_over()
        world.ledger.began(context.job.id, fence, step)
        context.reporter.event(f"fence {fence}")
        steps = 8 if world.yields else 4
        while step < steps:
            if context.should_stop():
                self._save(step)
                context.stop()
            world.scheduler.sleep(STEP_S)
            step += 1
            context.advance(step, steps, stage=f"fence {fence}")
            context.reporter.metrics(step, {"fence": float(fence)})
            self._save(step)
            if step == 2 and fence <= request["fails"]:
                if request["fails"] == 1:
                    raise JobFailed("training_failed", f"fence {fence}")
                raise RuntimeError("out of the blue")
            world.ledger.works(context.job.id, fence, context.folder.path)
        self._end()

    def _save(self, step: int) -> None:
        """Write a checkpoint as `sds_clip.models.training` does: aside, then under its name."""
        folder = self.context.folder.run / CHECKPOINTS
        target, aside = folder / checkpoint_name(step), folder / f".{checkpoint_name(step)}"
        if target.exists():
            return
        aside.mkdir(parents=True, exist_ok=True)
        (aside / TENSORS_FILE).write_bytes(b"")
        self.world.faults.file(f"save step {step}")
        (aside / DESCRIPTION_FILE).write_text(json.dumps({"sha256": hashlib.sha256(b"").hexdigest()}))
        aside.rename(target)
        self.world.ledger.saved(self.context.job.id, self.context.job.fence, step)

    def _end(self) -> None:
        """As `sds_clip.worker.finetune_job` ends a job."""
        while True:
            try:
                self._try_to_end()
                return
            except (AliasMoved, AliasLocked, MissingScope, UnusableRecord, VersionGone) as error:
                self.world.scheduler.note(f"tries again: {error}")

    def _try_to_end(self) -> None:
        world, context, request = self.world, self.context, self.context.job.request
        spec: Any = SimpleNamespace(
            promote="always" if request["promotes"] else "never", alias=request["alias"]
        )
        _, move = decide(context, spec, None, lambda holder: None)  # type: ignore[arg-type]
        world.scheduler.sleep(world.choices.pick((0.5, 6.0)))  # it measures the version in service
        version = self._publish(request["weights"])
        result = {"fence": context.job.fence, "files": {}}
        ended = context.succeed(version=version, result=result, promotion=move)
        world.ledger.told_of_success(ended, context.job.fence, move)

    def _publish(self, weights: str) -> NewVersion:
        context = self.context
        context.stage("publishing")
        source = context.folder.work / "weights"
        source.mkdir(parents=True, exist_ok=True)
        (source / "open_clip_config.json").write_text(weights)
        config = context.config
        published = publish(source, config.versions_dir, job=context.job.id, fence=context.job.fence)
        return NewVersion(
            id=published.version,
            folder=published.folder.relative_to(config.data_dir).as_posix(),
            description={},
            size_bytes=published.size_bytes,
            base_version=self.world.ledger.base,
        )


def version_of(weights: str) -> str:
    return hashlib.sha256(weights.encode()).hexdigest()


def work(world: World, process: Process) -> None:
    """A worker: its slot, which looks for jobs itself, and a task for each message."""
    slot = Slot(world.config, world.store, FIT, lambda kind, job_id: world.publish(job_id), UNMEASURED)
    world.ledger.owners[process.pid] = slot.owner
    slot.start()
    if not world.yields:
        Slot(world.config.of_checks, world.store, FIT, metrics=UNMEASURED, owner=slot.owner).start()
        look = partial(enlist, world.config, world.store, FIT, lambda kind, job_id: False)
        Periodic("enlisting", look, world.config.idle_tick_s).start()
    told = Event()
    world.told.append(told)
    try:
        while True:
            while not world.messages:
                told.clear()
                told.wait()
            slot.run(world.messages.pop(0))
    finally:
        world.told.remove(told)


def reaper(world: World) -> Reaper:
    made = Reaper(world.config, world.store, FIT, UNMEASURED)
    world.ledger.owners[current().process.pid] = made._owner
    return made


def clean_up(world: World, process: Process) -> None:
    cleaning = reaper(world)
    while True:
        with contextlib.suppress(StoreUnavailable):
            cleaning.look()
            world.scheduler.sleep(10.0)
            cleaning.sweep()
        world.scheduler.sleep(120.0 if world.is_over or world.yields else 10.0)


class Operator:
    """Somebody who asks for things at random."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._pick = world.choices.pick

    def run(self) -> None:
        acts = (
            *(lambda: None, self._pause, self._cancel, self._resume, self._retry, self._promote),
            *(self._roll_back, self._delete_version, self._delete_files, self._remove_alias, self._lock),
            *(self._promote, self._delete_version, self._clean_version, self._resume, self._retry),
            *(self._delete_dataset, *([self._pause] * (4 if self._world.yields else 1))),
        )
        while not self._world.is_over:
            self._world.scheduler.sleep(self._pick((9.0, 1.0, 25.0)))
            if not self._world.is_over:  # a retry after all has come to an end would leave a job that waits
                with contextlib.suppress(ServiceError):
                    self._pick(acts)()

    def _one(self, table: str, **wanted: str) -> str:
        """The id of a row of a table, chosen among those with these values. Nothing is wrong with reading them."""
        rows = self._world.ledger.tables[table].items()
        found = [id for id, row in rows if all(row[key] == value for key, value in wanted.items())]
        return self._pick(found[::-1] or ["none"])

    def _job(self) -> str:
        return self._one("jobs", kind="finetune")

    def _version(self) -> str:
        return self._one("versions")

    def _pause(self) -> None:
        self._world.store.jobs.request_pause(self._one("jobs", status="running"))

    def _cancel(self) -> None:
        job_id = self._job()
        self._world.ledger.may_be_cancelled.add(job_id)
        self._world.store.jobs.request_cancel(job_id)

    def _resume(self) -> None:
        for id, job in self._world.ledger.tables["jobs"].items():
            if job["status"] == JobStatus.PAUSED:
                self._world.store.jobs.request_resume(id)
                self._world.publish(id)

    def _retry(self) -> None:
        job = self._world.store.jobs.request_retry(self._job())
        self._world.publish(job.id)

    def _move(self) -> Move:
        name = self._pick(ALIASES)
        with contextlib.suppress(ServiceError):
            return Move(name, "operator", "", self._world.store.aliases.get(name).generation)
        return Move(name, "operator", "", 0)

    def _promote(self) -> None:
        move, version = self._move(), self._version()
        self._world.ledger.moved(move, self._world.store.aliases.promote(move, version))

    def _roll_back(self) -> None:
        move = self._move()
        self._world.ledger.moved(move, self._world.store.aliases.roll_back(move))

    def _remove_alias(self) -> None:
        self._world.store.aliases.remove(self._move())

    def _lock(self) -> None:
        name = self._pick(ALIASES)
        self._world.store.aliases.lock(name, "operator", "Do not move it.")
        self._world.scheduler.sleep(20.0)
        until_it_answers(self._world, lambda: self._world.store.aliases.unlock(name, "operator", ""))

    def _delete_version(self) -> None:
        """As `DELETE /versions/{id}` does (app/registry/version_service.py)."""
        version = self._version()
        if version != self._world.ledger.base:
            self._world.store.versions.delete(version)
            remove_version_files(self._world.store, self._world.config.versions_dir / version)

    def _delete_dataset(self) -> None:
        dataset = self._one("datasets")
        self._world.ledger.may_be_cancelled.add(check_of(dataset))
        self._world.store.datasets.delete(dataset)

    def _clean_version(self) -> None:
        """As the cleanup does with each folder of a version that is not registered."""
        folders = sorted(self._world.config.versions_dir.glob("[0-9a-f]*"))
        if folders:
            remove_version_files(self._world.store, self._pick(folders))

    def _delete_files(self) -> None:
        remove_job_files(self._world.store, self._world.config.jobs_dir, self._job())
