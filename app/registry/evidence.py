"""What was measured of two versions, so that the gate can compare them without measuring anything."""

import contextlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from sds_clip.app.errors import FilesOutside, UnknownRecord
from sds_clip.app.inside import job_file
from sds_clip.app.registry.gate import CandidateScores, Verdict, judge, verdict_on
from sds_clip.app.registry.measured import Measured, measured_by
from sds_clip.app.schemas.finetune import FinetuneSpec, Thresholds
from sds_clip.app.schemas.promotion import GateCheck, GateFigure, GateInfo, Missing
from sds_clip.app.store import Workspace
from sds_clip.app.store.records import Job, Version
from sds_clip.models.errors import EvaluationError
from sds_clip.models.evaluation.results import GROUP_MATCH, Metric, Results, read_results

_NOT_ASKED = ("model", "baseline", "data", "batch_size", "max_bad_share")
"""Options of an evaluation that do not change its figures, or that say what is measured."""
_SHOWN = ("benchmark", "primary", "macro_tags", "outcome", "metrics", "provenance")
"""What a version tells of an evaluation, as of one by the job that made it (worker/benchmarks.py)."""

_IN_WORDS: Mapping[Missing, str] = {
    "winoground": "winoground",
    "zero_shot_or_retrieval": "zero-shot or retrieval",
}


def evaluations_of(store: Workspace, version: Version) -> dict[str, Any] | None:
    """The figures of a version by benchmark and data set, or None if nothing was measured.

    They are those of the job that made it, and besides those of the newest evaluations that the caller sees.
    """
    described = version.description.get("evaluations")
    found = dict(described) if isinstance(described, dict) else {}
    # Jobs name a version that a job has made by its id. Others have references, too.
    for job in store.versions.evaluations(version.id, by_id=version.job_id is not None):
        for each in _of_version(job, version.id):
            shown = {name: each.figures[name] for name in _SHOWN if name in each.figures}
            found.setdefault(each.name, shown)
    return found or (None if described is None else {})


def gate_of(store: Workspace, data_dir: Path, version: Version, holder: str | None) -> GateInfo:
    """Compare a version with the one that an alias points to, by the jobs that the caller sees.

    The comparison by the job that made the version counts first, and then what evaluations and the jobs that made the
    two have measured of both on the same data.
    """
    other = version.base_version if holder is None else holder
    job = _maker(store, version)
    config = {} if job is None else FinetuneSpec.upgraded(job.config)
    thresholds = Thresholds.model_validate(config.get("thresholds", {}))
    evidence: list[str] = []
    if other is None:
        verdict = Verdict(False, "The version has no base to compare it with.", {})
    elif (figures := _own_figures(job)) is not None and figures["compared_with"] == other:
        verdict = verdict_on(figures, thresholds)
        evidence = [] if job is None else [job.id]
    else:
        verdict, evidence = _judged(store, data_dir, version.id, other, thresholds)
    return GateInfo(
        verdict=_word(verdict, is_same=other == version.id),
        why=verdict.why,
        compared_with=other,
        thresholds=thresholds,
        checks=[GateCheck.model_validate(check) for check in verdict.checks],
        figures=list(_compared(verdict.figures)),
        missing=_missing(verdict.figures),
        evidence=evidence,
    )


def _compared(figures: Mapping[str, Any]) -> Iterator[GateFigure]:
    """What was measured of both versions, which exists without a verdict too."""
    for on, gain in figures.get("winoground", {}).items():
        for figure in (GROUP_MATCH, "group_score"):
            yield GateFigure(
                on=on, figure=figure, before=gain[figure]["baseline"], after=gain[figure]["model"]
            )
    for on, kept in figures.get("kept", {}).items():
        yield GateFigure(on=on, figure="score", before=kept["baseline"], after=kept["model"])


def _missing(figures: Mapping[str, Any]) -> list[Missing]:
    """What a verdict lacks if the two versions can be compared, but were not measured on enough."""
    needed: Mapping[str, Missing] = {"winoground": "winoground", "kept": "zero_shot_or_retrieval"}
    return [name for found, name in needed.items() if figures and not figures[found]]


def _word(verdict: Verdict, *, is_same: bool) -> Literal["better", "not_better", "unknown"]:
    if verdict.promotes:
        return "better"
    return "not_better" if verdict.checks or is_same else "unknown"


def _maker(store: Workspace, version: Version) -> Job | None:
    """The job that made the version, if the caller sees it."""
    if version.job_id is None:
        return None
    with contextlib.suppress(UnknownRecord):
        return store.jobs.get(version.job_id)
    return None


def _own_figures(job: Job | None) -> dict[str, Any] | None:
    """The figures of a comparison that a job has made."""
    found = {} if job is None else (job.result or {}).get("promotion") or {}
    names = ("compared_with", "winoground", "kept")
    return {name: found[name] for name in names} if all(found.get(name) for name in names) else None


def _judged(
    store: Workspace, data_dir: Path, version: str, other: str, thresholds: Thresholds
) -> tuple[Verdict, list[str]]:
    mine, others = _measured(store, version), _measured(store, other)
    both = [asked for asked in mine if asked in others]

    def scores(of: str, found: Mapping[str, Measured]) -> CandidateScores:
        return CandidateScores(of, {mine[asked].name: _results(found[asked], data_dir) for asked in both})

    try:
        before, after = scores(other, others), scores(version, mine)
    except (EvaluationError, FilesOutside):  # whose text has the file's path
        return Verdict(False, "The files of an evaluation are missing or damaged. Evaluate again.", {}), []
    try:
        verdict = judge(before, after, thresholds)
    except EvaluationError as error:
        return Verdict(False, f"The evaluations of the two versions cannot be compared. {error}", {}), []
    used = list(dict.fromkeys(found[asked].job.id for asked in both for found in (others, mine)))
    if verdict.checks or version == other:
        return verdict, used
    missing = " and on ".join(_IN_WORDS[name] for name in _missing(verdict.figures))
    why = (
        f"No jobs have measured both the version and {other[:12]} on {missing}, or their files are deleted. Evaluate "
        "the version there (POST /evaluate) with the other one as `baseline`."
    )
    return Verdict(False, why, verdict.figures), used


def _measured(store: Workspace, version: str) -> dict[str, Measured]:
    """What was measured last of a version and still has its items, by what was asked and of which data."""
    found: dict[str, Measured] = {}
    for job in store.versions.evaluations(version):
        for each in _of_version(job, version):
            asked = {name: value for name, value in each.options.items() if name not in _NOT_ASKED}
            key = json.dumps([asked, each.figures["provenance"]["data_hash"]], sort_keys=True)
            if each.file is not None:
                found.setdefault(key, each)
    return found


def _of_version(job: Job, version: str) -> Iterator[Measured]:
    """What a job has measured of a version."""
    for pair in measured_by(job):
        for each in pair:
            if each is not None and each.figures["provenance"]["model_version"] == version:
                yield each


def _results(of: Measured, data_dir: Path) -> Results:
    """With their items if the gate compares those, as of Winoground, or else the figures alone."""
    if of.benchmark == "winoground" and of.file is not None:
        return read_results(job_file(data_dir / "jobs", of.job.id, data_dir / of.file))
    return Results(
        benchmark=of.benchmark,
        primary=of.figures["primary"],
        outcome=of.figures["outcome"],
        metrics={name: Metric(**metric) for name, metric in of.figures["metrics"].items()},
        by_tag={},
        items=(),
        provenance=dict(of.figures["provenance"]),
    )
