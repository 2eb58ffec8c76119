"""What the page shows, as text and pictures that the template only has to lay out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from models.evaluation.comparison import Comparison
from models.evaluation.paired import RESAMPLES
from models.evaluation.report.changes import ChangeRow, change_rows, summary, tag_changes
from models.evaluation.report.charts import share_bar
from models.evaluation.report.gallery import Gallery, galleries
from models.evaluation.report.margins import MarginChart, margin_chart
from models.evaluation.report.words import chance, interval, percent, shortened
from models.evaluation.results import GROUP_MATCH, Metric, Results

MODEL, BASELINE = "model", "baseline"
_LONGEST_VALUE = 300


@dataclass(frozen=True)
class ScoreLine:
    """One model's value of a figure."""

    series: str
    value: str
    interval: str
    d_prime: str
    bar: Markup


@dataclass(frozen=True)
class ScoreRow:
    """A figure, over how many items, and its value for each model."""

    name: str
    primary: bool
    n: int
    chance: str
    ties: list[int]
    lines: list[ScoreLine]


@dataclass(frozen=True)
class Page:
    """Everything that the template lays out; without a baseline what compares is empty or None."""

    benchmark: str
    models: list[tuple[str, str]]
    summary: list[str]
    scores: list[ScoreRow]
    tag_scores: list[ScoreRow]
    changes: list[ChangeRow]
    tag_changes: list[ChangeRow]
    resampling: str
    outcome: str
    margins: MarginChart | None
    galleries: list[Gallery]
    same_scale: bool
    provenance: list[tuple[str, list[str]]]


def page(results: Results, comparison: Comparison | None, baseline: Results | None) -> Page:
    """The page of one run, or of a run beside its baseline.

    Raises:
        ValueError: a comparison without its baseline, or the reverse.
    """
    if (comparison is None) != (baseline is None):
        raise ValueError("A comparison and its baseline belong together: give both or neither.")
    runs = [(MODEL, results)] if baseline is None else [(BASELINE, baseline), (MODEL, results)]
    same_scale = len({str(run.provenance.get("scorer")) for _, run in runs}) == 1
    return Page(
        benchmark=results.benchmark,
        models=[(series, _called(run, series)) for series, run in runs],
        summary=summary(results, comparison),
        scores=_score_rows(results.primary, [(series, run.metrics) for series, run in runs]),
        tag_scores=_tag_scores(results) if comparison is None else [],
        changes=change_rows(comparison) if comparison else [],
        tag_changes=tag_changes(comparison) if comparison else [],
        resampling=f"{RESAMPLES} resamples, seed {comparison.seed}" if comparison else "",
        outcome=results.outcome,
        margins=margin_chart(results.outcome, runs),
        galleries=galleries(results, baseline, same_scale=same_scale),
        same_scale=same_scale,
        provenance=_provenance([run for _, run in runs]),
    )


def _called(run: Results, series: str) -> str:
    """The model's name; a CLIP and a teacher may have the same."""
    name = str(run.provenance.get("model", series))
    return f"{name} (diffusion score)" if run.provenance.get("scorer") == "diffusion" else name


def _score_rows(primary: str, runs: Sequence[tuple[str, Mapping[str, Metric]]]) -> list[ScoreRow]:
    """The primary figure first, the others in their own order."""
    names = list(runs[-1][1])
    names.sort(key=lambda name: name != primary)
    return [
        _score_row(
            name, name == primary, [(series, metrics[name]) for series, metrics in runs if name in metrics]
        )
        for name in names
    ]


def _score_row(name: str, primary: bool, metrics: Sequence[tuple[str, Metric]]) -> ScoreRow:
    return ScoreRow(
        name=name,
        primary=primary,
        n=metrics[-1][1].n,
        chance=chance(metrics[-1][1].chance),
        ties=[metric.ties for _, metric in metrics],
        lines=[
            ScoreLine(
                series,
                percent(metric.value),
                interval(metric.low, metric.high),
                "" if metric.d_prime is None else f"d\u2032 {metric.d_prime:.2f}",
                share_bar(series, metric.value, metric.low, metric.high, chance=metric.chance),
            )
            for series, metric in metrics
        ],
    )


def _tag_scores(results: Results) -> list[ScoreRow]:
    """The primary figure and GroupMatch of every tag (or, where it has neither, all), the largest tags first."""
    rows = []
    for tag, metrics in results.by_tag.items():
        shown = [name for name in (results.primary, GROUP_MATCH) if name in metrics] or list(metrics)
        for name in shown:
            title = tag if len(shown) == 1 else f"{tag}: {name}"
            rows.append(_score_row(title, False, [(MODEL, metrics[name])]))
    return sorted(rows, key=lambda row: -row.n)


def _provenance(runs: Sequence[Results]) -> list[tuple[str, list[str]]]:
    """Every key that any run has, with each run's value."""
    flat = [dict(_flattened(run.provenance)) for run in runs]
    keys = dict.fromkeys(key for values in flat for key in values)
    return [(key, [values.get(key, "") for values in flat]) for key in keys]


def _flattened(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Nested keys joined by dots; a value that would fill the page is cut short."""
    found: list[tuple[str, str]] = []
    for key, value in values.items():
        if isinstance(value, Mapping):
            found += _flattened(value, f"{prefix}{key}.")
        else:
            listed = isinstance(value, Sequence) and not isinstance(value, str)
            text = ", ".join(map(str, value)) if listed else "none" if value is None else str(value)
            found.append((f"{prefix}{key}", shortened(text, _LONGEST_VALUE)))
    return found
