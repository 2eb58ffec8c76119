"""What goes and what stays. `decide` is a pure function, and it is the only place that decides."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, fields
from typing import Annotated

from pydantic import Field

from sds_clip.app.settings import Settings
from sds_clip.app.store.retention import Held, Holdings, Kind

Seconds = Annotated[float, Field(ge=0)] | None
_RULES = {
    Kind.VERSION: "keep_versions_s",
    Kind.JOB: "keep_jobs_s",
    Kind.EVALUATION: "keep_evaluations_s",
    Kind.DATASET: "keep_datasets_s",
}


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
    def limits(self) -> Mapping[Kind, float]:
        """How long things are kept after their last use, and jobs after their end, for the kinds that have a limit."""
        limits = {kind: getattr(self, rule) for kind, rule in _RULES.items()}
        return {kind: limit for kind, limit in limits.items() if limit is not None}


@dataclass(frozen=True)
class Finding(Held):
    """Something that is older than its limit."""

    age_s: float = 0.0
    """The time since its last use, or since its end for a job."""
    in_use: str | None = None
    """Why it stays, or None if it goes."""

    @property
    def why(self) -> str:
        return self.in_use or f"It is older than SDS_CLIP_{_RULES[self.kind].upper()}."


def decide(holdings: Holdings, rules: Rules, *, served: Collection[str] = ()) -> list[Finding]:
    """What is older than its limit, in the order of removal: a version comes before its base and before its job.

    `served` are the versions that serving processes have loaded for an alias or want to load.
    """
    limits = rules.limits
    old = {
        each.id: holdings.at - each.used_at
        for each in holdings.things
        if each.kind in limits and holdings.at - each.used_at >= limits[each.kind] and not each.is_operators
    }
    bases = {each.id: each.version for each in holdings.things if each.kind is Kind.VERSION}
    used = _used(holdings, rules, served)
    _add_bases(bases, used, young=bases.keys() - old.keys())
    for each in holdings.things:
        made = each.version
        if each.id not in bases and made in bases and (made in used or made not in old):
            used[each.id] = f"The version {made[:12]}, which it made, is kept."
    return [
        Finding(**vars(each), age_s=old[each.id], in_use=used.get(each.id))
        for each in sorted(holdings.things, key=lambda each: -_depth(each.id, bases))
        if each.id in old
    ]


def _used(holdings: Holdings, rules: Rules, served: Collection[str]) -> dict[str, str]:
    """What is in use, and by what."""
    used: dict[str, str] = {}
    ready = {each.id for each in holdings.things}
    for alias, (current, *earlier) in holdings.aliases.items():
        used[current] = f"The alias {alias} points to it."
        others = [each for each in dict.fromkeys(earlier) if each in ready and each != current]
        for each in others[: rules.keep_rollbacks]:
            used.setdefault(each, f"A rollback of the alias {alias} may return to it.")
    for thing in holdings.things:
        if thing.open_job is not None:
            used.setdefault(thing.id, f"The job {thing.open_job} needs it and has not ended.")
        if thing.id in served:
            used.setdefault(thing.id, "A process serves it.")
    return used


def _add_bases(bases: Mapping[str, str | None], used: dict[str, str], young: Collection[str]) -> None:
    """Add the versions that others which stay are based on, over any number of steps."""
    waiting = [*used, *young]
    while waiting:
        version = waiting.pop()
        base = bases.get(version)
        if base is not None and base in bases and base not in used and base not in young:
            used[base] = f"The version {version[:12]} is based on it."
            waiting.append(base)


def _depth(version: str | None, bases: Mapping[str, str | None]) -> int:
    """How many versions the version is built of. 0 for what is no version."""
    chain: dict[str, None] = {}
    while version is not None and version in bases and version not in chain:
        chain[version] = None
        version = bases[version]
    return len(chain)
