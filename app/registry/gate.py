"""Decides whether a version is better than the one in service, on metrics alone: explainable and repeatable.

A version is better when both hold:

- On every Winoground set, GroupMatch is higher with a one-sided exact McNemar p below `max_p`, and the group
  score is not lower.
- On every zero-shot set, accuracy is at most `max_loss` lower. If there is no zero-shot set, the same rule applies to
  the retrieval sets. If there are none either, it applies to retrieval on the validation pairs. Nothing else that was
  measured counts.

GroupMatch measures binding. While the group score is below chance, it does not measure binding, because noise alone
raises it there.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from sds_clip.app.schemas.finetune import Thresholds
from sds_clip.app.schemas.jobs import VALIDATION
from sds_clip.models.evaluation.comparison import PairedDifference, compare
from sds_clip.models.evaluation.results import GROUP_MATCH, Results
from sds_clip.models.evaluation.winoground import CHANCE

_ROUNDING = 1e-9  # differences below this come from float arithmetic
_DECIDING = {GROUP_MATCH: GROUP_MATCH, "group_score": "group"}
_RETRIEVAL = ("image_retrieval_recall@1", "text_retrieval_recall@1")


@dataclass(frozen=True)
class CandidateScores:
    """One candidate's results by benchmark and data set, and its metrics on the validation pairs."""

    version: str
    results: Mapping[str, Results]
    validation: Mapping[str, float] = field(default_factory=dict)


Rule = Literal["above", "below", "at_least"]


@dataclass(frozen=True)
class Check:
    """One condition: the value must be above, below or at least the limit."""

    on: str
    """The benchmark and its data set."""
    figure: str
    rule: Rule
    value: float
    limit: float
    why_not: str = field(repr=False)
    """What a verdict says if this fails."""

    @property
    def passed(self) -> bool:
        return {
            "above": self.value > self.limit,
            "below": self.value < self.limit,
            "at_least": self.value >= self.limit - _ROUNDING,
        }[self.rule]


@dataclass(frozen=True)
class Verdict:
    """Whether the version takes the alias, why, by which figures, and by which conditions on them."""

    promotes: bool
    why: str
    figures: dict[str, Any]
    checks: tuple[Check, ...] = ()


def judge(holder: CandidateScores, model: CandidateScores, thresholds: Thresholds) -> Verdict:
    """Compare a model with the version that an alias points to.

    Raises: EvaluationError if the two were not measured on the same items.
    """
    if holder.version == model.version:
        return Verdict(False, "The alias already points to this version.", {})
    gains = {name: _gain(holder.results[name], model.results[name]) for name in _of(model, "winoground")}
    figures = {"compared_with": holder.version, "winoground": gains, "kept": _losses(holder, model)}
    return verdict_on(figures, thresholds)


def verdict_on(figures: dict[str, Any], thresholds: Thresholds) -> Verdict:
    """The verdict on the figures of a comparison, which the result of a job keeps."""
    gains, losses = figures["winoground"], figures["kept"]
    if not gains or not losses:
        return Verdict(False, "There is no benchmark to compare the versions by.", figures)
    checks = (*_on_gains(gains, thresholds.max_p), *_on_losses(losses, thresholds.max_loss))
    failed = next((check for check in checks if not check.passed), None)
    if failed is not None:
        return Verdict(False, failed.why_not, figures, checks)
    words = " ".join(f"On {name}: {_in_words(gain, thresholds.max_p)}" for name, gain in gains.items())
    return Verdict(True, f"The new version is better. {words}", figures, checks)


def _on_gains(gains: Mapping[str, Any], max_p: float) -> Iterator[Check]:
    for name, gain in gains.items():
        match, group = gain[GROUP_MATCH], gain["group_score"]
        words = f"{name}: {_in_words(gain, max_p)}"
        no_better = f"The new version is not significantly better on {words}"
        yield Check(name, GROUP_MATCH, "above", match["difference"], 0.0, no_better)
        yield Check(name, f"{GROUP_MATCH}_p", "below", match["p_better"], max_p, no_better)
        fell = f"The group score fell on {words}"
        yield Check(name, "group_score", "at_least", group["difference"], 0.0, fell)


def _on_losses(losses: Mapping[str, Any], max_loss: float) -> Iterator[Check]:
    for name, loss in losses.items():
        change = f"from {loss['baseline']:.4f} to {loss['model']:.4f}"
        fell = f"On {name}, the score fell {change}, by more than {max_loss:g}."
        yield Check(name, "score", "at_least", loss["model"] - loss["baseline"], -max_loss, fell)


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
    if not all(name in each.validation for name in VALIDATION for each in (holder, model)):
        return {}
    means = [sum(each.validation[name] for name in VALIDATION) / len(VALIDATION) for each in (holder, model)]
    return {"retrieval on the validation data": {"baseline": means[0], "model": means[1]}}


def _of(scores: CandidateScores, benchmark: str) -> list[str]:
    return [name for name, results in scores.results.items() if results.benchmark == benchmark]


def _mean(results: Results, metrics: tuple[str, ...]) -> float:
    return sum(results.metrics[name].value for name in metrics) / len(metrics)
