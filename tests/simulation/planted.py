"""Faults that are put into the real code while it runs, to see that the simulation finds them.

Each one replaces a part of a function's source. A function that has another name by now, or no longer has that part,
ends the test: the fault has to be written anew.
"""

import ast
import inspect
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FunctionType, ModuleType
from typing import Any

from sds_clip.app import removal
from sds_clip.app.serving import swap
from sds_clip.app.store import (
    alias_sql,
    claims,
    jobs,
    leases,
    retention,
    shares,
    transitions,
    version_sql,
    versions,
)
from sds_clip.worker import lease_keeper, reaper, slot


class DoesNotApply(Exception):
    """The code has changed, so that a planted fault does not apply any more."""


@dataclass(frozen=True)
class Planted:
    """A fault: in this function, `part` becomes `wrong`."""

    name: str
    module: ModuleType
    function: str
    part: str
    wrong: str

    @contextmanager
    def applied(self) -> Iterator[None]:
        """While the fault is in the code. Raises DoesNotApply."""
        *owners, name = self.function.split(".")
        owner: Any = self.module
        try:
            for each in owners:
                owner = getattr(owner, each)
            real = inspect.getattr_static(owner, name)
        except AttributeError:
            raise DoesNotApply(f"{self.name}: there is no {self.function}.") from None
        inner = getattr(real, "__wrapped__", real)  # that of a context manager
        if not isinstance(real, FunctionType) or not isinstance(inner, FunctionType):
            raise DoesNotApply(f"{self.name}: {self.function} is not a function.")
        source = textwrap.dedent(inspect.getsource(inner))
        if source.count(self.part) != 1:
            raise DoesNotApply(
                f"{self.name}: {self.function} has {source.count(self.part)} times {self.part}."
            )
        code = compile(ast.parse(source.replace(self.part, self.wrong)), f"planted in {name}", "exec")
        made: dict[str, Any] = {}
        exec(code, inner.__globals__, made)
        before = inner.__code__
        wrong = made[name]
        inner.__code__ = getattr(wrong, "__wrapped__", wrong).__code__  # also for those who have imported it
        try:
            yield
        finally:
            inner.__code__ = before


_MATTERS_NOT = "if False:"

PLANTED = (
    Planted(
        "an attempt's fence is not checked",
        *(transitions, "leased_job"),
        *("if job.fence != lease.fence:", _MATTERS_NOT),
    ),
    Planted(
        "a report's fence is left out",
        *(leases, "_guarded", "jobs.c.fence == lease.fence, ", ""),
    ),
    Planted(
        "a report's status is left out",
        *(leases, "_guarded", ", jobs.c.status.in_(_HELD)", ""),
    ),
    Planted(
        "a held job is claimed",
        *(
            leases,
            "JobLeases.claim",
            "(connection, kind, now, weights",
            "(connection, kind, now + 30, weights",
        ),
    ),
    Planted(
        "a claim leaves the fence as it is", claims, "take", "fence=job.fence + 1,\n", "fence=job.fence,\n"
    ),
    Planted(
        "a job that is being cancelled makes a version",
        *(leases, "JobLeases.succeed", "if job.status is JobStatus.CANCELLING:", _MATTERS_NOT),
    ),
    Planted(
        "a living worker is given up",
        *(leases, "JobLeases.settle_abandoned", "_ABANDONED.where(jobs.c.lease_until <= now)", "_ABANDONED"),
    ),
    Planted(
        "a lapsed lease is no interruption",
        *(leases, "JobLeases.claim", " + (job.status is JobStatus.RUNNING)", ""),
    ),
    Planted(
        "a job that was let go has used up an attempt",
        *(leases, "JobLeases.release", "attempt=max(0, job.attempt - 1),", ""),
    ),
    Planted(
        "a job that comes on is not given new attempts",
        *(leases, "JobLeases.progress", "attempt=case((is_past, 1), else_=jobs.c.attempt),", ""),
    ),
    Planted(
        "a job that has used up its interruptions goes on",
        *(claims, "used_up", "if interruptions > job.max_interruptions:", _MATTERS_NOT),
    ),
    Planted(
        "the owner that has used most is next",
        *(shares, "next_in_turn", "(use[owner],", "(-use[owner],"),
    ),
    Planted(
        "the time of a lost lease counts twice",
        *(transitions, "ran_s", "min(now, job.lease_until)", "now + 60"),
    ),
    Planted(
        "a version is registered without files",
        *(version_sql, "register", "if files is not None and not files.is_dir():", _MATTERS_NOT),
    ),
    Planted(
        "the files of a registered version are removed",
        *(removal, "remove_version_files", "if not is_withheld:", _MATTERS_NOT),
    ),
    Planted(
        "what a killed removal has left stays",
        *(reaper, "Reaper._clean_jobs", "if folder.name.startswith(REMOVING):", _MATTERS_NOT),
    ),
    Planted(
        "a version is deleted though it is needed",
        *(versions, "_refuse_if_needed", "is not None", "== ''"),
    ),
    Planted(
        "a promotion is not compared with what it was decided on",
        *(alias_sql, "check_generation", "move.expected_generation != generation", "generation < 0"),
    ),
    Planted(
        "the alias moves before its job has ended",
        *(leases, "JobLeases.succeed", "    with self._database.writing() as connection:\n"),
        """
    if version is not None and promotion is not None:
        with self._database.writing() as connection:
            version_sql.register(connection, version, self._clock(), job_id=lease.job_id, files=files)
            alias_sql.promote(connection, promotion, version.id, self._clock(), job_id=lease.job_id)
    with self._database.writing() as connection:
""",
    ),
    Planted(
        "an alias that was removed goes on answering",
        *(swap, "Swapper._follow_all", "if name in removed:", _MATTERS_NOT),
    ),
    Planted(
        "a version that was overtaken while it loaded is put into service",
        *(swap, "Swapper._stage", "and followed.wanted.version == version:\n            self._put"),
        ":\n            self._put",
    ),
    Planted(
        "a turn is never over",
        *(shares, "is_turn_over", "return any(use[owner] < own for", "return any(False for"),
    ),
    Planted(
        "a turn is over though nobody waits",
        *(
            shares,
            "is_turn_over",
            "return any(use[owner] < own for",
            "return True or any(use[owner] < own for",
        ),
    ),
    Planted(
        "a turn begins before the job comes on",
        *(slot, "_Watch._is_turn_over", "if row.furthest_step > self.job.furthest_step:", "if True:"),
    ),
    Planted(
        "the turn of a job ends that is being paused",
        *(leases, "JobLeases.end_turn", "job.status is not JobStatus.RUNNING or not", "not"),
    ),
    Planted("an interruption is followed at once", claims, "take", "not_before=due", "not_before=now"),
    Planted(
        "an error is followed at once",
        *(leases, "JobLeases.fail", 'values["not_before"] = now + (retry_in_s or 0)', "pass"),
    ),
    Planted(
        "a process goes on whose lease is lost",
        *(lease_keeper, "LeaseKeeper._renew", "if status is None:", _MATTERS_NOT),
    ),
    Planted(
        "two clean up at once",
        *(
            retention,
            "RetentionRecords.claim_sweep",
            "leases.c.lease_until <= now",
            "leases.c.lease_until > 0",
        ),
    ),
    Planted(
        "what a publisher writes is removed",
        *(removal, "remove_version_leftovers", "abandoned = temporary and", "abandoned = temporary or"),
    ),
    Planted(
        "a submission that is repeated makes a second job",
        *(jobs, "JobQueries.submit", "if (earlier := self._earlier(connection, new)) is not None:"),
        "earlier = None\n        if earlier is not None:",
    ),
)
