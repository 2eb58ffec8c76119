"""What goes and what stays. `decide` is a pure function, and it is the only place that decides."""

from collections.abc import Collection, Mapping
from dataclasses import astuple, dataclass, fields
from enum import StrEnum
from typing import Annotated

from pydantic import Field

from sds_clip.app.settings import Settings
from sds_clip.app.store.retention import Holdings
from sds_clip.app.store.states import JobKind

Seconds = Annotated[float, Field(ge=0)] | None


@dataclass(frozen=True)
class Rules:
    """The rules from the settings of the same names. Without a time, everything of its kind is kept."""

    keep_jobs_s: Seconds = None
    keep_evaluations_s: Seconds = None
    keep_versions_s: Seconds = None
    keep_datasets_s: Seconds = None
    keep_rollbacks: Annotated[int, Field(ge=0)] | None = None

    @classmethod
    def of(cls, settings: Settings) -> "Rules":
        return cls(**{field.name: getattr(settings, field.name) for field in fields(cls)})

    @property
    def are_set(self) -> bool:
        """Whether anything can go."""
        return astuple(self)[:-1] != (None,) * 4

    @property
    def of_jobs(self) -> Mapping[JobKind, float]:
        """How long jobs are kept after their end, for those kinds that have a limit."""
        limits = {JobKind.FINETUNE: self.keep_jobs_s, JobKind.EVALUATE: self.keep_evaluations_s}
        return {kind: limit for kind, limit in limits.items() if limit is not None}


class Kind(StrEnum):
    """What is kept or removed."""

    VERSION = "version"
    JOB = "job"
    EVALUATION = "evaluation"
    DATASET = "data set"


_KINDS = {JobKind.FINETUNE: Kind.JOB, JobKind.EVALUATE: Kind.EVALUATION}
_SETTINGS = {
    Kind.VERSION: "SDS_CLIP_KEEP_VERSIONS_S",
    Kind.JOB: "SDS_CLIP_KEEP_JOBS_S",
    Kind.EVALUATION: "SDS_CLIP_KEEP_EVALUATIONS_S",
    Kind.DATASET: "SDS_CLIP_KEEP_DATASETS_S",
}


@dataclass(frozen=True)
class Finding:
    """Something that is older than its limit."""

    kind: Kind
    id: str
    name: str
    owner: str
    age_s: float
    """The time since its last use, or since its end for a job."""
    folder: str | None
    """Where its files are in the data folder. None for registered data, whose files stay."""
    in_use: str | None
    """Why it stays, or None if it goes."""

    @property
    def why(self) -> str:
        return self.in_use or f"It is older than {_SETTINGS[self.kind]}."


def decide(holdings: Holdings, rules: Rules, *, served: Collection[str] = ()) -> list[Finding]:
    """What is older than its limit, in the order of removal: a version comes before its base and before its job.

    `served` are the versions that serving processes have loaded for an alias or want to load.
    """
    used = _used_versions(holdings, rules, served)
    young = {
        version.id
        for version in holdings.versions
        if version.folder is None  # the operator's own, which has no files here
        or rules.keep_versions_s is None
        or holdings.at - version.used_at < rules.keep_versions_s
    }
    _add_bases(holdings, used, young)
    stay = used.keys() | young
    return [
        *_versions(holdings, used, young),
        *_jobs(holdings, rules, stay),
        *_datasets(holdings, rules),
    ]


def _used_versions(holdings: Holdings, rules: Rules, served: Collection[str]) -> dict[str, str]:
    """The versions that are in use, and by what."""
    used: dict[str, str] = {}
    ready = {version.id for version in holdings.versions}
    for alias, (current, *earlier) in holdings.aliases.items():
        used[current] = f"The alias {alias} points to it."
        others = [each for each in dict.fromkeys(earlier) if each in ready and each != current]
        for each in others[: rules.keep_rollbacks]:
            used.setdefault(each, f"A rollback of the alias {alias} may return to it.")
    for version in holdings.versions:
        if version.open_job is not None:
            used.setdefault(version.id, _needed_by(version.open_job))
        if version.id in served:
            used.setdefault(version.id, "A process serves it.")
    return used


def _add_bases(holdings: Holdings, used: dict[str, str], young: Collection[str]) -> None:
    """Add the versions that others which stay are based on, over any number of steps."""
    bases = {version.id: version.base_version for version in holdings.versions}
    waiting = [*used, *young]
    while waiting:
        version = waiting.pop()
        base = bases.get(version)
        if base in bases and base not in used and base not in young:
            used[base] = f"The version {version[:12]} is based on it."
            waiting.append(base)


def _versions(holdings: Holdings, used: Mapping[str, str], young: Collection[str]) -> list[Finding]:
    bases = {version.id: version.base_version for version in holdings.versions}

    def depth(version: str | None) -> int:
        chain: dict[str, None] = {}
        while version in bases and version not in chain:
            chain[version] = None
            version = bases[version]
        return len(chain)

    return [
        Finding(
            Kind.VERSION, each.id, "", each.owner, holdings.at - each.used_at, each.folder, used.get(each.id)
        )
        for each in sorted(holdings.versions, key=lambda each: -depth(each.id))
        if each.id not in young
    ]


def _jobs(holdings: Holdings, rules: Rules, stay: Collection[str]) -> list[Finding]:
    limits = rules.of_jobs
    return [
        Finding(
            _KINDS[job.kind],
            job.id,
            job.suffix or "",
            job.owner,
            holdings.at - job.finished_at,
            f"jobs/{job.id}",
            _made(job.result_version) if job.result_version in stay else None,
        )
        for job in holdings.jobs
        if job.kind in limits and holdings.at - job.finished_at >= limits[job.kind]
    ]


def _datasets(holdings: Holdings, rules: Rules) -> list[Finding]:
    return [
        Finding(
            Kind.DATASET,
            each.id,
            each.name,
            each.owner,
            holdings.at - each.used_at,
            None if each.is_registered else f"datasets/sets/{each.id}",
            None if each.open_job is None else _needed_by(each.open_job),
        )
        for each in holdings.datasets
        if rules.keep_datasets_s is not None and holdings.at - each.used_at >= rules.keep_datasets_s
    ]


def _made(version: str | None) -> str:
    return f"The version {(version or '')[:12]}, which it made, is kept."


def _needed_by(job: str) -> str:
    return f"The job {job} needs it and has not ended."
