"""Decides whether a finished job's version takes an alias. `sds_clip.app.registry.gate` compares it with what is there.

While the alias is locked, the job compares its version all the same, and does not promote it.
"""

from collections.abc import Callable

from sds_clip.app.registry.gate import CandidateScores, Verdict, judge
from sds_clip.app.registry.version_service import LOCKED
from sds_clip.app.schemas.finetune import FinetuneSpec
from sds_clip.app.store.records import AliasLock, Move
from sds_clip.worker.context import JobContext


def decide(
    context: JobContext,
    job: FinetuneSpec,
    scores: CandidateScores,
    measure_holder: Callable[[str | None], CandidateScores],
) -> tuple[Verdict, Move | None]:
    """Decide whether to promote. The move applies only while the alias has the generation read here.

    `measure_holder` measures the version that the alias points to, or the base where there is no such alias. It is
    called only if the two are compared.
    """
    if job.promote == "never":
        return Verdict(False, "Promotion was not requested.", {}), None
    context.stage("promoting")
    alias = context.store.aliases.find(job.alias)
    holder = None if alias is None else alias.version
    of_owner = None if context.job.by_admin else context.job.owner
    if of_owner is not None and (alias is None or alias.owner != of_owner):
        verdict = Verdict(False, f"The alias {job.alias} no longer belongs to the key that made the job.", {})
    elif job.promote == "always":
        verdict = Verdict(True, "Promotion was requested without a comparison.", {"compared_with": None})
    else:
        compared = scores if holder == scores.version else measure_holder(holder)
        verdict = judge(compared, scores, job.thresholds)
    if verdict.promotes and alias is not None and alias.lock is not None:
        verdict = _locked_out(verdict, alias.name, alias.lock)
    context.reporter.event(verdict.why, data={"alias": job.alias, "promoted": verdict.promotes})
    if not verdict.promotes:
        return verdict, None
    move = Move(
        alias=job.alias,
        who=context.job.owner or "job",
        why=f"job {context.job.id}: {verdict.why}",
        expected_generation=0 if alias is None else alias.generation,
        metrics=verdict.figures,
        of_owner=of_owner,
    )
    return verdict, move


def _locked_out(verdict: Verdict, alias: str, lock: AliasLock) -> Verdict:
    """Turn a verdict to promote into one that keeps its figures and leaves the alias where it is."""
    why = f"{verdict.why} It was not promoted, because the alias {alias} is locked: {lock}"
    return Verdict(False, why, {**verdict.figures, LOCKED: True})
