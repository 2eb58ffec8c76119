"""Should a new version take an alias? Decided on figures alone, so that the answer can be read and repeated.

`if_better`: on every Winoground set the group score is higher, with a one-sided exact McNemar p below `max_p`; and
zero-shot accuracy is at most `max_loss` lower, or retrieval where no zero-shot set was measured.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from app.jobs.requests import Thresholds
from models.evaluation.comparison import compare
from models.evaluation.results import Results

_ROUNDING = 1e-9
_RETRIEVAL = ("image_retrieval_recall@1", "text_retrieval_recall@1")
_VALIDATION = ("validation_image_to_text", "validation_text_to_image")


@dataclass(frozen=True)
class Measured:
    """What was found of one model: results by benchmark and data set, and its figures on the validation pairs."""

    version: str
    results: Mapping[str, Results]
    validation: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Verdict:
    """Whether the model is better, why, and on which figures."""

    better: bool
    why: str
    figures: dict[str, Any]


def judge(holder: Measured, model: Measured, thresholds: Thresholds) -> Verdict:
    """Compare a model with the one that an alias points at.

    Raises: EvaluationError where the two were not measured on the same items.
    """
    if holder.version == model.version:
        return Verdict(False, "It is the version that the alias points at.", {})
    gains = {name: _gain(holder.results[name], model.results[name]) for name in _of(model, "winoground")}
    losses = _losses(holder, model)
    figures: dict[str, Any] = {"compared_with": holder.version, "winoground": gains, "kept": losses}
    if not gains or not losses:
        return Verdict(False, "There is nothing to compare it by.", figures)
    for name, gain in gains.items():
        if not (gain["difference"] > 0 and gain["p_better"] < thresholds.max_p):
            return Verdict(False, f"{name}: {_in_words(gain)}, so it is not better.", figures)
    for name, loss in losses.items():
        if loss["model"] < loss["baseline"] - thresholds.max_loss - _ROUNDING:
            change = f"from {loss['baseline']:.4f} to {loss['model']:.4f}"
            return Verdict(False, f"{name} fell {change}, more than {thresholds.max_loss:g}.", figures)
    words = "; ".join(f"{name}: {_in_words(gain)}" for name, gain in gains.items())
    return Verdict(True, f"It is better: {words}.", figures)


def _gain(holder: Results, model: Results) -> dict[str, float]:
    found = compare(holder, model).outcomes["group"]
    return {
        "baseline": found.baseline,
        "model": found.model,
        "difference": found.difference,
        "p_better": found.p_better,
        "items": found.counts.n,
    }


def _in_words(gain: Mapping[str, float]) -> str:
    return f"group score {gain['baseline']:.4f} -> {gain['model']:.4f} (McNemar's one-sided p {gain['p_better']:.3g})"


def _losses(holder: Measured, model: Measured) -> dict[str, dict[str, float]]:
    """What should not get worse: the first of zero-shot, retrieval and validation that there is."""
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


def _of(measured: Measured, benchmark: str) -> list[str]:
    return [name for name, results in measured.results.items() if results.benchmark == benchmark]


def _mean(results: Results, metrics: tuple[str, ...]) -> float:
    return sum(results.metrics[name].value for name in metrics) / len(metrics)
