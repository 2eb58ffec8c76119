"""Decides whether a finished job's version takes an alias, on metrics alone: explainable and repeatable.

`if_better` promotes when both hold:

- On every Winoground set, GroupMatch is higher with a one-sided exact McNemar p below `max_p`, and the group
  score is not lower.
- On every zero-shot set, accuracy is at most `max_loss` lower. If there is no zero-shot set, the same rule applies to
  the retrieval sets. If there are none either, it applies to retrieval on the validation pairs. Nothing else that was
  measured counts.

GroupMatch measures binding. While the group score is below chance, it does not measure binding, because noise alone
raises it there.

While the alias is locked, the job compares its version all the same, and does not promote it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from app.errors import UnknownRecord
from app.registry.service import LOCKED
from app.schemas.finetune import FinetuneSpec, Thresholds
from app.store import Store
from app.store.records import Alias, AliasLock, Move
from models.evaluation.comparison import PairedDifference, compare
from models.evaluation.results import GROUP_MATCH, Results
from models.evaluation.winoground import CHANCE
from worker.context import JobContext

_ROUNDING = 1e-9  # differences below this come from float arithmetic
_DECIDING = {GROUP_MATCH: GROUP_MATCH, "group_score": "group"}
_RETRIEVAL = ("image_retrieval_recall@1", "text_retrieval_recall@1")
_VALIDATION = ("validation_image_to_text", "validation_text_to_image")


@dataclass(frozen=True)
class CandidateScores:
    """One candidate's results by benchmark and data set, and its metrics on the validation pairs."""

    version: str
    results: Mapping[str, Results]
    validation: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Verdict:
    """Whether the version takes the alias, why, and by which figures."""

    promotes: bool
    why: str
    figures: dict[str, Any]


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
    alias = alias_of(context.store, job.alias)
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


def alias_of(store: Store, name: str) -> Alias | None:
    """The alias, or None if there is no such alias."""
    try:
        return store.aliases.get(name)
    except UnknownRecord:
        return None


def _locked_out(verdict: Verdict, alias: str, lock: AliasLock) -> Verdict:
    """Turn a verdict to promote into one that keeps its figures and leaves the alias where it is."""
    why = f"{verdict.why} It was not promoted, because the alias {alias} is locked: {lock}"
    return Verdict(False, why, {**verdict.figures, LOCKED: True})


def judge(holder: CandidateScores, model: CandidateScores, thresholds: Thresholds) -> Verdict:
    """Compare a model with the version that an alias points to.

    Raises: EvaluationError if the two were not measured on the same items.
    """
    if holder.version == model.version:
        return Verdict(False, "The alias already points to this version.", {})
    gains = {name: _gain(holder.results[name], model.results[name]) for name in _of(model, "winoground")}
    losses = _losses(holder, model)
    figures: dict[str, Any] = {"compared_with": holder.version, "winoground": gains, "kept": losses}
    if not gains or not losses:
        return Verdict(False, "There is no benchmark to compare the versions by.", figures)
    for name, gain in gains.items():
        match, group = gain[GROUP_MATCH], gain["group_score"]
        words = f"{name}: {_in_words(gain, thresholds.max_p)}"
        if not (match["difference"] > 0 and match["p_better"] < thresholds.max_p):
            return Verdict(False, f"The new version is not significantly better on {words}", figures)
        if group["difference"] < -_ROUNDING:
            return Verdict(False, f"The group score fell on {words}", figures)
    for name, loss in losses.items():
        if loss["model"] < loss["baseline"] - thresholds.max_loss - _ROUNDING:
            change = f"from {loss['baseline']:.4f} to {loss['model']:.4f}"
            why = f"On {name}, the score fell {change}, by more than {thresholds.max_loss:g}."
            return Verdict(False, why, figures)
    words = " ".join(f"On {name}: {_in_words(gain, thresholds.max_p)}" for name, gain in gains.items())
    return Verdict(True, f"The new version is better. {words}", figures)


def _gain(holder: Results, model: Results) -> dict[str, Any]:
    """GroupMatch and group score before and after, and which of them are below chance."""
    outcomes = compare(holder, model).outcomes
    gain = {name: _figures(outcomes[outcome]) for name, outcome in _DECIDING.items()}
    under = [
        f"{name} of the {whose}"
        for name, found in gain.items()
        for whose, side in (("version in service", "baseline"), ("new version", "model"))
        if found[side] < found["chance"]
    ]
    return {**gain, "under_chance": under}


def _figures(found: PairedDifference) -> dict[str, float]:
    return {
        "baseline": found.baseline,
        "model": found.model,
        "difference": found.difference,
        "p_better": found.p_better,
        "items": found.counts.n,
        "chance": CHANCE[found.outcome],
    }


def _in_words(gain: Mapping[str, Any], max_p: float) -> str:
    match, group = gain[GROUP_MATCH], gain["group_score"]
    words = (
        f"GroupMatch {match['baseline']:.4f} -> {match['model']:.4f} (chance {match['chance']:.4f}; one-sided McNemar "
        f"p = {match['p_better']:.3g}, which must be below {max_p:g}), group score {group['baseline']:.4f} -> "
        f"{group['model']:.4f} (chance {group['chance']:.4f})."
    )
    below = ", ".join(gain["under_chance"])
    return (
        f"{words} These figures are below chance, so they do not measure binding: {below}."
        if below
        else words
    )


def _losses(holder: CandidateScores, model: CandidateScores) -> dict[str, dict[str, float]]:
    """What must not get worse: zero-shot accuracy, else retrieval, else validation."""
    for benchmark, metrics in (("zero-shot", ("acc1",)), ("retrieval", _RETRIEVAL)):
        names = _of(model, benchmark)
        if names:
            return {
                name: {
                    "baseline": _mean(holder.results[name], metrics),
                    "model": _mean(model.results[name], metrics),
                }
                for name in names
            }
    if not all(name in each.validation for name in _VALIDATION for each in (holder, model)):
        return {}
    means = [
        sum(each.validation[name] for name in _VALIDATION) / len(_VALIDATION) for each in (holder, model)
    ]
    return {"retrieval on the validation data": {"baseline": means[0], "model": means[1]}}


def _of(scores: CandidateScores, benchmark: str) -> list[str]:
    return [name for name, results in scores.results.items() if results.benchmark == benchmark]


def _mean(results: Results, metrics: tuple[str, ...]) -> float:
    return sum(results.metrics[name].value for name in metrics) / len(metrics)
