"""What must hold after each commit, and at the end. It reads the tables itself, and knows only the promises.

No job is lost, and none has two effects: every change of a job's row is by the attempt that holds it, or by a claim, a
request or a cleanup that may make it. An alias points to a version that is whole, and moves one generation at a time.
The owner that has used the slots least is next.
"""

import json
import re
import sqlite3
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from greenlet import getcurrent

from sds_clip.app.registry.manifest import read_manifest
from sds_clip.app.store.records import Alias, Job, Move
from sds_clip.app.store.states import HELD, OPEN, TERMINAL, TRANSITIONS, Action, JobStatus
from sds_clip.worker.config import WorkerConfig
from tests.simulation.scheduler import Broken, Process, Scheduler, Thread, current

LIMITS = ("interrupted_too_often", "run_time_exceeded")
FAILURES = (*LIMITS, "process_died")
_FAILURES = {1: ("training_failed",), 2: ("internal_error",)}
"""Those of the jobs that are told to fail."""
STEP_S = 4.0
RETRY_BASE_S, MAX_BACK_OFF_S = 5.0, 300.0
AT_WORK_S, PERIOD_S, HALF_LIFE_S = 600.0, 6 * 3600.0, 24 * 3600.0
Row = Mapping[str, Any]
Table = Mapping[Any, Row]

_QUERIES = {
    "jobs": ("id", "SELECT * FROM jobs"),
    "versions": ("id", "SELECT * FROM versions"),
    "aliases": ("name", "SELECT * FROM aliases"),
    "datasets": ("id", "SELECT * FROM datasets"),
    "leases": ("name", "SELECT * FROM leases"),
}
_NEXT = {
    (before, after): action for (before, action), after in TRANSITIONS.items()
} | {  # a retry passes `validating` within its transaction
    (JobStatus.FAILED, JobStatus.QUEUED): Action.RETRY,
    (JobStatus.CANCELLED, JobStatus.QUEUED): Action.RETRY,
}
_CLAIMED: Mapping[str, set[tuple[int, int]]] = {"queued": {(1, 0)}, "running": {(0, 1)}}
_COUNTED: Mapping[tuple[str, str], set[tuple[int, int]]] = {
    ("running", "queued"): {(-1, 1)},  # a shutdown
    ("running", "paused"): {(-1, 0)},
    ("pausing", "paused"): {(-1, 0), (0, 1), (0, 0)},  # a checkpoint, a lost worker, an error
    ("cancelling", "cancelled"): {(0, 0), (0, 1), (-1, 0)},
    ("running", "failed"): {(0, 0), (0, 1)},
}
"""What a claim and a change of status may add to a job's attempts and interruptions. Any other change adds nothing."""
_PUBLISHING = re.compile(r"\.{1,2}publishing\.(\w+)\.(\d+)")
_AFTER_THE_END = {"files_removed_at", "pruned_at"}
_SPENT = ("attempt", "interruptions", "furthest_step", "run_time_s")


@dataclass
class Attempt:
    """What an attempt at a job is compared with."""

    fence: int
    number: int
    furthest_step: int
    process: Process
    advanced_at: float | None = None
    """When it came further than ever, which begins its turn."""
    waited_for_since: float | None = None
    """Since when a job of another owner would be next."""


@dataclass
class Ledger:
    """What has happened in a schedule, as far as it is needed to tell whether the next commit is right."""

    scheduler: Scheduler
    database: sqlite3.Connection
    config: WorkerConfig
    base: str
    tables: dict[str, Table] = field(default_factory=dict)
    used: dict[tuple[str, str], float] = field(default_factory=dict)
    periods: list[Any] = field(default_factory=list)
    owners: dict[int, str] = field(default_factory=dict)
    """The name under which each worker's process holds leases."""
    attempts: dict[str, Attempt] = field(default_factory=dict)
    """The last attempt at each job."""
    lost: set[tuple[str, int]] = field(default_factory=set)
    """The leases of which a job's process was told that they are lost."""
    keys: dict[str, str] = field(default_factory=dict)
    removed: set[str] = field(default_factory=set)
    may_be_cancelled: set[str] = field(default_factory=set)
    steps: dict[str, dict[int, int]] = field(default_factory=dict)
    """The newest whole checkpoint of each attempt at a job."""
    history: dict[tuple[str, int], str | None] = field(default_factory=dict)
    """What each generation of an alias points to, None for nothing."""
    data_version: int = 0
    lease: tuple[str, int] | None = None
    """That for which the last commit was made."""
    answered: dict[tuple[str, str], int] = field(default_factory=dict)
    """The newest generation that a serving process has answered with for a name."""

    def __post_init__(self) -> None:
        self.database.row_factory = sqlite3.Row
        self.tables = self._read()

    def _read(self) -> dict[str, Table]:
        return {
            name: {row[key]: row for row in self.database.execute(query)}
            for name, (key, query) in _QUERIES.items()
        }

    def broken(self, what: str) -> None:
        self.scheduler.fail(what)
        raise self.scheduler.failure or Broken(what)

    def require(self, holds: object, what: str) -> None:
        if not holds:
            self.broken(what)

    # What actors tell.

    def accepted(self, key: str, job_id: str) -> None:
        self.require(self.keys.setdefault(key, job_id) == job_id, f"{key} made two jobs")

    def began(self, job_id: str, fence: int, step: int) -> None:
        earlier = [done for at, done in self.steps.get(job_id, {}).items() if at < fence]
        self.require(step >= max(earlier, default=0), f"{job_id} went on from step {step} of {earlier}")

    def saved(self, job_id: str, fence: int, step: int) -> None:
        self.steps.setdefault(job_id, {})[fence] = step

    def moves(self, folder: Path) -> None:
        """A folder is being moved or removed. A process that is killed now leaves its job without checkpoints."""
        self.steps.pop(folder.name, None)
        if (written := _PUBLISHING.match(folder.name)) is not None:
            job, fence = self.tables["jobs"].get(written[1]), int(written[2])
            is_held = job is not None and job["fence"] == fence and job["status"] in HELD
            mine = current().process.lease == (written[1], fence)
            self.require(mine or not is_held, f"{folder.name} was removed while it was being published")

    def works(self, job_id: str, fence: int, folder: Path) -> None:
        row = self.tables["jobs"].get(job_id)
        if row is not None and row["fence"] == fence and row["status"] in HELD:
            self.require(folder.is_dir(), f"the folder of {job_id} was removed under its attempt {fence}")
        else:
            self.require((job_id, fence) not in self.lost, f"{job_id} goes on, and its lease {fence} is lost")
        attempt = self.attempts[job_id]
        if row is None or row["status"] != "running" or attempt.fence != fence:
            return
        began, since = attempt.advanced_at, attempt.waited_for_since
        if began is not None and since is not None:
            quiet_from = max(since, current().process.quiet_from)
            over = max(began + self.config.max_turn_s, quiet_from + self.config.idle_tick_s)
            ends = over + 2 * self.config.watch_every_s + STEP_S + 2.0
            self.require(self.scheduler.now < ends, f"{job_id} goes on, though its turn is over")

    def told_of_success(self, ended: Job, fence: int, move: Move | None) -> None:
        self.require(ended.fence == fence, f"attempt {fence} was told of the success of {ended.fence}")
        if move is not None and ended.status is JobStatus.SUCCEEDED:
            lines = self._all("SELECT generation FROM promotions WHERE job_id = ?", ended.id)
            self.require(
                [line[0] for line in lines] in ([], [(move.expected_generation or 0) + 1])
                or self._was_removed(move),
                f"{ended.id} moved {move.alias} on from another generation than it had decided on",
            )

    def moved(self, move: Move, alias: Alias) -> None:
        expected = move.expected_generation or 0
        self.require(
            alias.generation in (expected, expected + 1) or self._was_removed(move),
            f"{move.alias} moved to generation {alias.generation}, which was decided on {expected}",
        )

    def _was_removed(self, move: Move) -> bool:
        """An alias that was removed begins at 0 for whoever reads it, and goes on where it was."""
        return move.expected_generation == 0

    def answers(self, process: str, name: str, model: str, version: str, generation: int) -> None:
        """A serving process has answered a request for a name by a model."""
        if model != name:
            self.require((process, name) not in self.answered, f"{process} answered {name} as {model}")
            return
        promoted = self.history.get((name, generation))
        self.require(promoted == version, f"{name} answered as {version[:6]}, and {generation} is {promoted}")
        newest = self.answered.get((process, name), 0)
        self.require(
            generation >= newest, f"{process} answered {name} with generation {generation} after {newest}"
        )
        self.answered[process, name] = generation

    def is_overtaken(self, lease: tuple[str, int], has_ended: bool) -> bool:
        row = self.tables["jobs"].get(lease[0])
        return row is None or (
            row["fence"] > lease[1] and (not has_ended or row["status"] not in HELD | {JobStatus.QUEUED})
        )

    # What commits change.

    def committed(self) -> None:
        """Compare the tables with what they were before, if anything has changed."""
        [[data_version]] = self._all("PRAGMA data_version")
        if data_version == self.data_version:
            return
        self.data_version = data_version
        before, after = self.tables, self._read()
        self.tables = after
        thread = getcurrent()
        actor = thread.process if isinstance(thread, Thread) else None
        self.lease = (thread.lease or thread.process.lease) if isinstance(thread, Thread) else None
        for job_id in before["jobs"].keys() | after["jobs"].keys():
            old, new = before["jobs"].get(job_id), after["jobs"].get(job_id)
            if old is not None and new is not None and tuple(old) == tuple(new):
                continue
            if old is None:
                assert new is not None
                self.require(
                    new["fence"] == 0 and new["status"] in ("queued", "validating"), f"{job_id} began late"
                )
            elif new is None:
                self._removed(old)
            elif new["fence"] != old["fence"]:
                self._claimed(old, new, before["jobs"].values(), actor)
            else:
                self._changed(old, new, actor)
        self._turns(after["jobs"].values())
        self._cleanups(before["leases"], after["leases"], actor)
        self._datasets(before["datasets"], after)
        self._versions(before, after)
        self._aliases(before["aliases"], after["aliases"])
        self._use(before["jobs"], after["jobs"])
        self.scheduler.look_at_sleepers()

    def _removed(self, job: Row) -> None:
        self.require(
            job["status"] in TERMINAL and job["files_removed_at"] is not None, f"{job['id']} was lost"
        )
        for id, version in self.tables["versions"].items():
            is_its = id == job["result_version"] or version["job_id"] == job["id"]
            self.require(
                not is_its or version["status"] != "ready", f"{job['id']}, which made {id[:6]}, is gone"
            )
        self.removed.add(job["id"])

    def _claimed(self, old: Row, new: Row, jobs: Iterable[Row], actor: Process | None) -> None:
        job_id, now, kind = new["id"], self.now, new["kind"]
        jobs = [job for job in jobs if job["kind"] == kind]
        self.scheduler.note(f"claims {job_id} with fence {new['fence']}")
        owner = None if actor is None else self.owners.get(actor.pid)
        self.require(
            owner is not None and new["lease_owner"] == owner, f"{job_id} was claimed for somebody else"
        )
        assert actor is not None
        self.attempts[job_id] = Attempt(new["fence"], new["attempt"], new["furthest_step"], actor)
        self._backs_off(new, new["interruptions"])
        self.require(
            new["fence"] == old["fence"] + 1 and new["status"] == "running", f"{job_id} has a wrong fence"
        )
        self.require(_is_due(old, now), f"{job_id} was claimed, though it was {old['status']} or held")
        self._counts(old, new, _CLAIMED[old["status"]])
        self.require(new["attempt"] <= new["max_attempts"], f"{job_id} has too many attempts")
        due = [old, *(job for job in jobs if _is_due(job, now - 0.01))]
        use = self._use_of(jobs, now, kind)
        least = min(use.get(job["owner"], 0.0) for job in due)
        self.require(
            use.get(old["owner"], 0.0) <= least + 1.0, f"{job_id} was claimed before its turn: {use}"
        )
        first = min(_place(job) for job in due if job["owner"] == old["owner"])
        self.require(
            _place(old) == first, f"{job_id} was claimed before a job of a higher priority, or an older one"
        )
        self.require(not _is_spent(new), f"{job_id} was claimed, though it has used up what it may")

    def _changed(self, old: Row, new: Row, actor: Process | None) -> None:
        job_id, was, now_is = new["id"], old["status"], new["status"]
        lease = self.lease
        if was != now_is:
            self.scheduler.note(f"{job_id}: {was} -> {now_is}")
            self.require((was, now_is) in _NEXT, f"{job_id} went from {was} to {now_is}")
        expected = _COUNTED.get((was, now_is), {(0, 0)})
        if was == "running" and now_is == "queued":
            [[told]] = self._all(
                "SELECT data FROM events WHERE job_id = ? ORDER BY number DESC LIMIT 1", job_id
            )
            if "error" in json.loads(told):
                expected = {(0, 0)}
                self._backs_off(new, self.attempts[job_id].number)
            elif old["turn_over_at"] is not None:
                expected = {(-1, 0)}
        self._counts(old, new, expected)
        is_sooner = new["not_before"] < old["not_before"] and new["furthest_step"] == old["furthest_step"]
        self.require(was != now_is or not is_sooner, f"{job_id} does not wait any more")
        if new["turn_over_at"] != old["turn_over_at"]:
            self._turn_ends(old)
        if was == "validating":
            sets = "SELECT dataset_id FROM job_datasets WHERE job_id = ?"
            found = {self.tables["datasets"][row[0]]["status"] for row in self._all(sets, job_id)}
            wanted = {"queued": found <= {"ready"}, "failed": "rejected" in found}
            self.require(wanted.get(now_is, True), f"{job_id} is {now_is}, and its data are {found}")
        changed = {key for key in new.keys() if new[key] != old[key]}  # noqa: SIM118 (a Row iterates over its values)
        if was in TERMINAL and now_is == was:
            self.require(
                changed <= _AFTER_THE_END, f"{job_id} has ended as {was}, and {changed} changed afterwards"
            )
        if "files_removed_at" in changed and new["files_removed_at"] is not None:
            self.require(was in TERMINAL, f"the files of {job_id} were removed while it was {was}")
            self.steps.pop(job_id, None)
        is_exhausted = now_is == "failed" and _code(new) in LIMITS and _is_due(old, self.now)
        if lease is not None and not is_exhausted and was != "validating":
            holds = (job_id, old["fence"]) == lease and was in HELD
            self.require(
                holds, f"the attempt {lease} changed {changed} of {job_id}, held by fence {old['fence']}"
            )
        elif was in HELD and now_is not in HELD:
            self.require(
                old["lease_until"] <= self.now, f"{job_id} was taken from a worker that holds it: {now_is}"
            )
            is_counted = lease is not None or new["interruptions"] == old["interruptions"] + 1
            self.require(is_counted, f"{job_id} was not interrupted")
        is_check = new["kind"] == "check"
        if now_is == "succeeded" and not is_check:
            self.require(
                json.loads(new["result"])["fence"] == new["fence"], f"{job_id} has a result of another"
            )
        makes = now_is == "succeeded" and not is_check
        self.require((new["result_version"] is not None) == makes, f"{job_id} has a version")
        if now_is == "failed" != was != "validating":
            is_last = _is_spent(new) if _code(new) in LIMITS else new["attempt"] >= new["max_attempts"]
            self.require(
                is_last or _code(new) in _FAILURES[1], f"{job_id} has failed too early: {_code(new)}"
            )
            came_to = self.steps.get(job_id, {}).get(new["fence"], 0) if _code(new) == "process_died" else 0
            self.require(came_to <= new["furthest_step"], f"{job_id} has failed, and had come on")
        if now_is == "cancelled" and was != now_is:
            self.require(job_id in self.may_be_cancelled, f"nobody has cancelled {job_id}")
        if "stage" in changed and str(new["stage"]).startswith("fence"):
            self.require(
                new["stage"] == f"fence {new['fence']}", f"{job_id} has the progress of {new['stage']}"
            )

    def _backs_off(self, job: Row, times: int) -> None:
        """After so many setbacks in a row it waits, twice as long after each."""
        wait_s = min(MAX_BACK_OFF_S, RETRY_BASE_S * 2.0 ** (times - 1)) if times else 0.0
        self.require(job["not_before"] > self.now + wait_s - 0.1, f"{job['id']} does not wait after {times}")

    def _turns(self, jobs: Collection[Row]) -> None:
        """Note for how long each job at work has come on, and whether others wait."""
        use = {kind: self._use_of(jobs, self.now, kind) for kind in {job["kind"] for job in jobs}}
        for job in jobs:
            attempt = self.attempts.get(job["id"])
            if attempt is None or job["status"] != "running":
                continue
            if attempt.advanced_at is None and job["furthest_step"] > attempt.furthest_step:
                attempt.advanced_at = self.scheduler.now
            if not self._is_waited_for(job, jobs, use[job["kind"]], by_s=1.0):
                attempt.waited_for_since = None
            elif attempt.waited_for_since is None:
                attempt.waited_for_since = self.scheduler.now

    def _is_waited_for(self, job: Row, jobs: Collection[Row], use: Mapping[str, float], by_s: float) -> bool:
        """Whether a job of another owner would be next if this one stopped."""
        own = use[job["owner"]] - AT_WORK_S / self.config.share_weights.get(job["owner"], 1.0) - by_s
        others = [each for each in jobs if each["kind"] == job["kind"] and each["owner"] != job["owner"]]
        return any(_is_due(each, self.now) and use.get(each["owner"], 0.0) < own for each in others)

    def _turn_ends(self, job: Row) -> None:
        """Its turn is over: it has come on for as long as a turn lasts, and another owner's job is next."""
        attempt, jobs = self.attempts[job["id"]], self.tables["jobs"].values()
        self.require(
            job["status"] == "running", f"the turn of {job['id']} ended while it was {job['status']}"
        )
        began = attempt.advanced_at
        self.require(
            began is not None and self.scheduler.now - began > self.config.max_turn_s - 0.1,
            f"{job['id']} had no turn: it came on at {began}",
        )
        use = self._use_of(jobs, self.now, job["kind"])
        self.require(
            self._is_waited_for(job, jobs, use, by_s=-1.0), f"the turn of {job['id']} ended for nobody"
        )

    def _cleanups(self, before: Table, after: Table, actor: Process | None) -> None:
        """Two never clean up at once: a lease is let go by who holds it, or has ended."""
        for name, old in before.items():
            new = after.get(name)
            if new is None or new["owner"] != old["owner"]:
                is_own = new is None and actor is not None and self.owners.get(actor.pid) == old["owner"]
                self.require(
                    is_own or old["lease_until"] <= self.now, f"two hold the lease {name}: {old['owner']}"
                )

    def _datasets(self, before: Table, after: Mapping[str, Table]) -> None:
        """A data set has a verdict once its check has ended, and only one."""
        for id, dataset in after["datasets"].items():
            old, check = before.get(id), after["jobs"].get(f"job_{id}")
            was, now_is = None if old is None else old["status"], dataset["status"]
            if now_is != "deleted":
                has_ended = check is not None and check["status"] in TERMINAL
                self.require(
                    has_ended == (now_is != "validating"), f"{id} is {now_is}, its check: {has_ended}"
                )
            self.require(
                was == now_is or was in (None, "validating") or now_is == "deleted",
                f"{id} went from {was} to {now_is}",
            )
            if now_is == "deleted" != was:
                needed = self._all("SELECT job_id FROM job_datasets WHERE dataset_id = ?", id)
                open_jobs = [job for (job,) in needed if after["jobs"][job]["status"] in OPEN]
                self.require(not open_jobs, f"{id} was deleted, and {open_jobs} need it")

    def _counts(self, old: Row, new: Row, expected: set[tuple[int, int]]) -> None:
        """Attempts count what fails, interruptions what is lost, and a step further than ever begins anew."""
        is_further, is_left = new["furthest_step"] > old["furthest_step"], new["status"] != old["status"]
        if is_left and old["status"] in TERMINAL:
            self.require(
                not any(new[each] for each in _SPENT), f"{new['id']} is retried, and has used up something"
            )
            return
        self.require(new["furthest_step"] >= old["furthest_step"], f"{new['id']} has lost steps")
        if is_further or (is_left and old["status"] == "paused"):
            is_right = new["attempt"] == int(is_further) or new["status"] == "cancelled"
        else:
            added = new["attempt"] - old["attempt"], new["interruptions"] - old["interruptions"]
            is_right = added in expected
        self.require(is_right, f"{new['id']} was counted wrongly from {old['status']} to {new['status']}")

    def _versions(self, before: Mapping[str, Table], after: Mapping[str, Table]) -> None:
        gone = before["versions"].keys() - after["versions"].keys()
        self.require(not gone, f"{gone} are forgotten")
        for id, version in after["versions"].items():
            was = before["versions"].get(id)
            if version["status"] == "ready" and version["folder"] is not None:
                self.require(
                    (self.config.data_dir / version["folder"]).is_dir(), f"the version {id[:6]} has no files"
                )
                made = None if version["job_id"] is None else after["jobs"].get(version["job_id"])
                self.require(
                    made is None or made["result_version"] == id, f"{version['job_id']} has made two things"
                )
            elif version["status"] == "deleted" and was is not None and was["status"] == "ready":
                self._deleted(id, after)

    def _deleted(self, id: str, after: Mapping[str, Table]) -> None:
        held = {alias["version"] for alias in after["aliases"].values() if alias["removed_at"] is None}
        self.require(id not in held, f"the version {id[:6]} was deleted, and an alias points to it")
        needed = {row[0] for row in self._all("SELECT job_id FROM job_versions WHERE version_id = ?", id)}
        open_jobs = [job for job in needed if after["jobs"][job]["status"] in OPEN]
        self.require(not open_jobs, f"the version {id[:6]} was deleted, and {open_jobs} need it")
        children = [
            each
            for each in after["versions"].values()
            if each["base_version"] == id and each["status"] == "ready"
        ]
        self.require(not children, f"the version {id[:6]} was deleted, and others are based on it")

    def _aliases(self, before: Table, after: Table) -> None:
        for name, alias in after.items():
            old = before.get(name)
            generation, was = alias["generation"], 0 if old is None else old["generation"]
            version = None if alias["removed_at"] is not None else alias["version"]
            if generation != was:
                self.require(generation == was + 1, f"{name} went from generation {was} to {generation}")
                self.scheduler.note(f"{name} is at {generation}: {version and version[:6]}")
                self.history[name, generation] = version
                lines = self._all(
                    "SELECT to_version FROM promotions WHERE alias = ? AND generation = ? AND action IN "
                    "('promote', 'rollback', 'remove')",
                    *(name, generation),
                )
                self.require(
                    [line[0] for line in lines] == [alias["version"]], f"the audit of {name} is wrong"
                )
            else:
                self.require(
                    self.history.get((name, generation)) == version, f"{name} changed without a move"
                )
            for pointed in filter(None, (version, version and alias["previous"])):
                row = self.tables["versions"].get(pointed)
                self.require(
                    row is not None and row["status"] == "ready", f"{name} points to {pointed[:6]}, not ready"
                )

    def _use(self, before: Table, after: Table) -> None:
        """The time that a job has held a slot is its owner's, once."""
        expected = dict(self.used)
        for id, job in after.items():
            old = before.get(id)
            if old is None or old["status"] not in HELD:
                continue
            if job["status"] not in HELD or job["fence"] != old["fence"]:
                ran_s = max(0.0, min(self.now, old["lease_until"]) - old["claimed_at"])
                key = job["kind"], job["owner"]
                expected[key] = expected.get(key, 0.0) + ran_s
                gap = abs(job["run_time_s"] - old["run_time_s"] - ran_s)
                self.require(gap < 1.0, f"the time of {id} is {gap:.1f} s off")
        self.periods = self._all("SELECT kind, owner, period, used_s FROM slot_use")
        self.used = {}
        for kind, owner, _, used_s in self.periods:
            self.used[kind, owner] = self.used.get((kind, owner), 0.0) + used_s
        for key in expected.keys() | self.used.keys():
            gap = abs(expected.get(key, 0.0) - self.used.get(key, 0.0))
            self.require(gap < 1.0, f"the use of {key} is {gap:.1f} s off")

    def _use_of(self, jobs: Iterable[Row], now: float, kind: str) -> dict[str, float]:
        """Use by owner before a claim, as docs/decisions/0080-shares.md says."""
        use: dict[str, float] = {}
        for of_kind, owner, period, used_s in self.periods:
            if of_kind != kind:
                continue
            age_s = max(0.0, now - (period + 1) * PERIOD_S)
            use[owner] = use.get(owner, 0.0) + used_s * 0.5 ** (age_s / HALF_LIFE_S)
        for job in jobs:
            if job["kind"] == kind and job["status"] in HELD:
                ran_s = max(0.0, min(now, job["lease_until"]) - job["claimed_at"])
                use[job["owner"]] = use.get(job["owner"], 0.0) + ran_s + AT_WORK_S
        return {owner: used_s / self.config.share_weights.get(owner, 1.0) for owner, used_s in use.items()}

    # What holds at the end, when everything had time to settle.

    def has_settled(self) -> bool:
        rows = [*self.tables["jobs"].values(), *self.tables["datasets"].values()]
        return not any(row["status"] in OPEN for row in rows)

    def at_the_end(self) -> None:
        jobs = self.tables["jobs"]
        for key, job_id in self.keys.items():
            self.require(job_id in jobs or job_id in self.removed, f"{job_id} of {key} was lost")
        for id, job in jobs.items():
            self.require(job["status"] in TERMINAL, f"{id} is {job['status']} for ever")
            self._events(job)
        for id, dataset in self.tables["datasets"].items():
            self.require(dataset["status"] != "validating", f"{id} is checked for ever")

    def cleaned_up(self) -> None:
        """Of jobs that have ended, of versions that nobody has registered, and of who was killed, no files are left."""
        jobs, versions = self.tables["jobs"], self.tables["versions"]
        left = [path.name for path in self.config.data_dir.glob("*/.*")]
        left += [path.name for path in self.config.data_dir.glob("jobs/*") if path.name in jobs]
        for folder in self.config.data_dir.glob("versions/[!.]*"):
            row = versions.get(folder.name)
            if (read_manifest(folder).job in jobs) if row is None else row["status"] == "deleted":
                left.append(folder.name)
        self.require(not left, f"{left} are left")

    def _events(self, job: Row) -> None:
        """They tell the same story: numbered, each status from the one before, each message by who held the job."""
        told = self._all(
            "SELECT number, type, message, data FROM events WHERE job_id = ? ORDER BY number", job["id"]
        )
        numbers = [line[0] for line in told]
        if job["pruned_at"] is None:
            self.require(
                numbers == list(range(1, job["event_count"] + 1)), f"{job['id']} lacks events: {numbers}"
            )
        statuses = [json.loads(line[3]) for line in told if line[1] == "status"]
        for one, following in pairwise(statuses):
            self.require(one["to"] == following["from"], f"{job['id']} went {one} and then {following}")
        fence, fails = 0, json.loads(job["request"]).get("fails", 2)
        for _, kind, message, data in told:
            if kind == "status":
                fence = json.loads(data).get("fence", fence)
                code = json.loads(data).get("error", {}).get("code")
                self.require(
                    code in (None, "dataset_rejected", *_FAILURES.get(fails, ()), *FAILURES),
                    f"{job['id']} failed: {message}",
                )
            elif kind == "message" and message.startswith("fence "):
                self.require(message == f"fence {fence}", f"{job['id']} was told {message} under {fence}")

    @property
    def now(self) -> float:
        """The time of the database, without a step."""
        return self.scheduler.now + self.scheduler.skew_s

    def _all(self, query: str, *values: object) -> list[Any]:
        return [tuple(row) for row in self.database.execute(query, values)]


def _is_due(job: Row, now: float) -> bool:
    if job["not_before"] > now:
        return False
    return job["status"] == "queued" or (job["status"] == "running" and job["lease_until"] <= now)


def _place(job: Row) -> tuple[int, float]:
    """Its place among the jobs of its owner."""
    return -job["priority"], job["created_at"]


def _is_spent(job: Row) -> bool:
    return bool(job["interruptions"] > job["max_interruptions"] or job["run_time_s"] >= job["max_run_time_s"])


def _code(job: Row) -> str | None:
    error = None if job["error"] is None else json.loads(job["error"])
    return None if error is None else error["code"]
