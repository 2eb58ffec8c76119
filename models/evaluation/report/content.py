"""Which figures the page shows, in which order and on which scale. The template decides how."""

from collections.abc import Mapping, Sequence
from typing import Any

from sds_clip.models.evaluation.comparison import (
    Comparison,
    MacroDifference,
    PairedDifference,
    compared_by_tag,
)
from sds_clip.models.evaluation.results import GROUP_MATCH, Metric, Results

MODEL, BASELINE = "model", "baseline"

Run = tuple[str, Results]
"""`model` or `baseline`, and the results of that run."""

Difference = PairedDifference | MacroDifference


def model_name(run: Results, series: str) -> str:
    """Return the model's name, with the scorer if it is a teacher: a CLIP may have the same name."""
    name = str(run.provenance.get("model", series))
    return f"{name} (diffusion score)" if run.provenance.get("scorer") == "diffusion" else name


def scores(runs: Sequence[Run], primary: str) -> dict[str, dict[str, Metric]]:
    """Return every figure's value for each run that has it, the primary figure first."""
    names = sorted(runs[-1][1].metrics, key=lambda name: name != primary)
    return {
        name: {series: run.metrics[name] for series, run in runs if name in run.metrics} for name in names
    }


def tag_scores(results: Results) -> dict[str, dict[str, Metric]]:
    """Return the primary figure and GroupMatch of every tag, the largest tags first.

    A tag that has neither shows all of its figures.
    """
    found = {}
    for tag, metrics in results.by_tag.items():
        shown = [name for name in (results.primary, GROUP_MATCH) if name in metrics] or list(metrics)
        for name in shown:
            found[tag if len(shown) == 1 else f"{tag}: {name}"] = {MODEL: metrics[name]}
    return dict(sorted(found.items(), key=lambda row: -row[1][MODEL].n))


def changes(comparison: Comparison) -> list[tuple[str, Difference]]:
    """Return the named differences in the report's order.

    The mean over tags comes first, if there is one, then the headline outcome, then the other outcomes.
    """
    macro = [(comparison.macro.metric, comparison.macro)] if comparison.macro else []
    return [*macro, *sorted(comparison.outcomes.items(), key=lambda row: row[0] != comparison.outcome)]


def tag_changes(comparison: Comparison) -> list[tuple[str, Difference]]:
    """Return the headline outcome of every tag, and GroupMatch if there is one, the largest tags first."""
    found = [
        (tag if name == comparison.outcome else f"{tag}: {name}", outcomes[name])
        for tag, outcomes in comparison.by_tag.items()
        for name in compared_by_tag(comparison)
        if name in outcomes
    ]
    return [*sorted(found, key=lambda row: -row[1].counts.n)]


def axis_limit(rows: Sequence[tuple[str, Difference]]) -> float:
    """Return half the width of the axis that all rows share: their widest interval, at least one point."""
    return max([0.01, *(abs(end) for _, one in rows for end in (one.low, one.high, one.difference))]) * 1.05


def axis_mark(limit: float) -> float:
    """Return the number of points that an axis is marked at on both sides of 0: 1, 2 or 5 times a power of ten."""
    digit, _, exponent = f"{100 * limit:.12e}".partition("e")
    return max(mark for mark in (1, 2, 5) if mark <= float(digit)) * 10.0 ** int(exponent)


def provenance(runs: Sequence[Run]) -> dict[str, list[str]]:
    flat = [_flattened(run.provenance) for _, run in runs]
    return {key: [values.get(key, "") for values in flat] for values in flat for key in values}


def _flattened(values: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    found: dict[str, str] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            found |= _flattened(value, f"{prefix}{key}.")
        else:
            listed = isinstance(value, Sequence) and not isinstance(value, str)
            text = ", ".join(map(str, value)) if listed else "none" if value is None else str(value)
            found[f"{prefix}{key}"] = text
    return found
