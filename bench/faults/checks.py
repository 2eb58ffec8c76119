"""What must hold after every fault."""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TypeVar

from bench.faults.callers import what_is_wrong
from bench.faults.system import System
from sds_clip.app.registry.manifest import VersionError, verify
from sds_clip.app.store.paging import MAX_LIMIT
from sds_clip.app.store.records import EventType, Job, Page, Version
from sds_clip.app.store.states import JobStatus

R = TypeVar("R", Job, Version)


@dataclass
class Findings:
    """Violations found; all lists are empty if everything holds."""

    lost: list[str] = field(default_factory=list)
    """Accepted jobs that have not succeeded."""
    duplicated: list[str] = field(default_factory=list)
    """Effects that happened twice."""
    wrong: list[str] = field(default_factory=list)
    """Answers from weights other than those promoted."""
    broken: list[str] = field(default_factory=list)
    """Problems with aliases, versions or a service."""

    def __bool__(self) -> bool:
        return any(self.by_name().values())

    def by_name(self) -> dict[str, list[str]]:
        return vars(self)


def check(system: System, *, any_age: bool = False) -> Findings:
    """Check every job accepted so far, every version, the alias, the services and their answers."""
    findings = Findings()
    _check_jobs(system, findings)
    _check_versions(system, findings)
    _check_alias(system, findings)
    _check_answers(system, findings, any_age=any_age)
    if not system.serves_the_alias():
        findings.broken.append("a service does not answer with the alias's version")
    return findings


def _check_jobs(system: System, findings: Findings) -> None:
    for job_id in system.accepted:
        job = system.job(job_id)
        if job.status is not JobStatus.SUCCEEDED:
            findings.lost.append(f"{job_id} is {job.status}: {job.error}")
        ends = [
            event
            for event in system.store.events.transitions(job_id)
            if event.type == EventType.STATUS and event.data and event.data["to"] == JobStatus.SUCCEEDED
        ]
        findings.duplicated += [f"{job_id} succeeded {len(ends)} times"] * max(0, len(ends) - 1)
    # A repeated submission with the same key must return the existing job.
    every = {job.id for job in _all(system.store.jobs.list)}
    findings.duplicated += [f"{job_id} was made and is nobody's" for job_id in every - {*system.accepted}]


def _check_versions(system: System, findings: Findings) -> None:
    folders = {folder.name for folder in system.config.versions_dir.iterdir() if folder.name[0] != "."}
    versions = [version for version in _all(system.store.versions.list) if version.folder]
    for job_id, number in Counter(version.job_id for version in versions).items():
        findings.duplicated += [f"{job_id} has {number} versions"] * (number - 1)
    findings.broken += [f"{name} is in no row" for name in folders - {version.id for version in versions}]


def _check_alias(system: System, findings: Findings) -> None:
    alias = system.store.aliases.get("default")
    version = system.store.versions.get(alias.version)
    moves = system.store.aliases.promotions("default", limit=MAX_LIMIT)
    for job_id, number in Counter(move.job_id for move in moves if move.job_id).items():
        findings.duplicated += [f"{job_id} was promoted {number} times"] * (number - 1)
    if version.folder is None:
        return  # the operator's own weights, never published
    try:
        verify(system.data_dir / version.folder, version.id)
    except VersionError as error:
        findings.broken.append(str(error))


def _check_answers(system: System, findings: Findings, *, any_age: bool) -> None:
    """Check the answers since the last check."""
    answers = [answer for caller in system.callers for answer in caller.taken()]
    moves = {move.generation: move for move in system.store.aliases.promotions("default", limit=MAX_LIMIT)}
    found = (what_is_wrong(answer, moves, system.scores_of, any_age=any_age) for answer in answers)
    findings.wrong += [text for text in found if text is not None]


def _all(page: Callable[..., Page[R]]) -> Iterator[R]:
    found: Page[R] = page(limit=MAX_LIMIT)
    yield from found.items
    while found.has_more:
        found = page(limit=MAX_LIMIT, after=found.items[-1].id)
        yield from found.items
