"""The demonstration's figure: scores by variant and kind, with curves of loss and residual gap below."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from numpy.typing import NDArray
from PIL import Image

from demo.experiment import Outcome, by_variant
from demo.statistics import Score, interval, seed_means
from models.evaluation.winoground import CHANCE as CHANCES

BASE_COLOUR = "0.6"
COLOURS = (
    "#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377", "#ee8866", "#44bb99", "#222255", "#885533",
)  # fmt: skip
SCORES: dict[Score, str] = {"group_match": "GroupMatch, %", "group": "group score, %"}
WINDOW = 5
CHANCE: dict[str, Any] = {"color": "0.3", "linewidth": 1, "linestyle": ":"}
DOT: dict[str, Any] = {"markerfacecolor": "white", "markeredgecolor": "0.15", "markeredgewidth": 0.7}
Record = Mapping[str, float]


def write_figure(outcomes: Sequence[Outcome], base: Outcome, file: Path, titles: Mapping[str, str]) -> None:
    """Save the figure as a palette PNG, about a third of the size of an RGB one."""
    drawn = BytesIO()
    draw(outcomes, base, titles).savefig(drawn, format="png", dpi=120)
    image = Image.open(drawn).convert("RGB")
    image.quantize(128, dither=Image.Dither.NONE).save(file, format="PNG", optimize=True)


def draw(outcomes: Sequence[Outcome], base: Outcome, titles: Mapping[str, str]) -> Figure:
    """A column per set of trained parameters: GroupMatch, group score, L_CLIP, with L_SDS residual gaps."""
    groups = by_variant(outcomes)
    names = list(dict.fromkeys(name for _, name in groups))
    colours = {name: COLOURS[place % len(COLOURS)] for place, name in enumerate(names)}
    columns = list(dict.fromkeys(trainable for trainable, _ in groups))
    curves: dict[str, Callable[[Record], float | None]] = {"L_CLIP": lambda record: record.get("clip")}
    if any(relative_gap(record) is not None for run in outcomes for record in run.log):
        curves["residual gap, shuffled\nover true captions, %"] = relative_gap
    heights = (*[2] * len(SCORES), *[1] * len(curves))
    figure = Figure(figsize=(7 * len(columns), 2.5 * sum(heights)), layout="constrained")
    axes = figure.subplots(
        len(heights), len(columns), squeeze=False, sharey="row", gridspec_kw={"height_ratios": heights}
    )
    for column, trainable in enumerate(columns):
        variants = {name: runs for (trained, name), runs in groups.items() if trained == trainable}
        bars, below = axes[: len(SCORES), column], axes[len(SCORES) :, column]
        bars[0].set_title(titles.get(trainable, trainable))
        for axis, score in zip(bars, SCORES, strict=True):
            _draw_scores(axis, variants, base, colours, score)
        for axis, value_of in zip(below, curves.values(), strict=True):
            _draw_curves(axis, variants, value_of, colours)
            if value_of is relative_gap:
                axis.axhline(0, color="0.3", linewidth=0.8)
        below[-1].set_xlabel("step")
    for axis, label in zip(axes[:, 0], (*SCORES.values(), *curves), strict=True):
        axis.set_ylabel(label)
    figure.legend(handles=_handles(colours), loc="outside upper center", ncols=4, frameon=False)
    return figure


def relative_gap(record: Record) -> float | None:
    """Increase of the teacher's residual under shuffled captions, in percent of that under the true ones."""
    if "residual_shuffled" not in record:
        return None
    return 100 * (record["residual_shuffled"] - record["residual"]) / record["residual"]


def curve(
    runs: Sequence[Outcome], value_of: Callable[[Record], float | None]
) -> tuple[list[float], NDArray[np.float64]]:
    """The steps at which all seeds logged a value, and the mean over seeds at each."""
    logs = []
    for run in runs:
        values = ((record["step"], value_of(record)) for record in run.log)
        logs.append({step: value for step, value in values if value is not None})
    steps = sorted(set.intersection(*(set(log) for log in logs)))
    return steps, np.array([np.mean([log[step] for log in logs]) for step in steps], dtype=np.float64)


def running_mean(values: NDArray[np.float64], window: int = WINDOW) -> NDArray[np.float64]:
    """The mean over up to `window` values around each; fewer at the ends."""
    half = window // 2
    means = [values[max(0, place - half) : place + half + 1].mean() for place in range(len(values))]
    return np.array(means, dtype=np.float64)


def _handles(colours: Mapping[str, str]) -> list[Artist]:
    bars = [Patch(color=colour, label=name) for name, colour in (("base", BASE_COLOUR), *colours.items())]
    dot = Line2D([], [], linestyle="", marker="o", markersize=4, label="one seed", **DOT)
    return [*bars, dot, Line2D([], [], label="chance", **CHANCE)]


def _draw_scores(
    axis: Any,
    variants: Mapping[str, list[Outcome]],
    base: Outcome,
    colours: Mapping[str, str],
    score: Score,
) -> None:
    """Bars of a mean score with intervals, a dot per seed, and a line at chance."""
    kinds = [None, *dict.fromkeys(base.measured.kinds)]
    bars = {"base": [base], **variants}
    width = 0.84 / len(bars)
    for place, (name, runs) in enumerate(bars.items()):
        at = np.arange(len(kinds)) + (place - (len(bars) - 1) / 2) * width
        found = [interval(runs, score, kind) for kind in kinds]
        means = 100 * np.array([one.mean for one in found])
        # With few seeds the mean may lie slightly outside the percentiles of its resamples.
        ends = 100 * np.array([[max(0, one.mean - one.low), max(0, one.high - one.mean)] for one in found]).T
        axis.bar(at, means, width * 0.92, color=colours.get(name, BASE_COLOUR))
        axis.errorbar(at, means, ends, fmt="none", ecolor="0.15", elinewidth=1, capsize=2)
        if len(runs) > 1:
            seeds = 100 * np.array([seed_means(runs, score, kind) for kind in kinds])
            spread = np.linspace(-0.2, 0.2, len(runs)) * width
            axis.plot((at[:, None] + spread).ravel(), seeds.ravel(), "o", markersize=3, **DOT)
    axis.axhline(100 * CHANCES[score], **CHANCE)
    axis.set_xticks(range(len(kinds)), [kind or "all" for kind in kinds])
    _tidy(axis)


def _draw_curves(
    axis: Any,
    variants: Mapping[str, list[Outcome]],
    value_of: Callable[[Record], float | None],
    colours: Mapping[str, str],
) -> None:
    """Smoothed means over seeds by step; variants without such values are left out."""
    for name, runs in variants.items():
        steps, means = curve(runs, value_of)
        if steps:
            axis.plot(steps, running_mean(means), color=colours[name], linewidth=1.4)
    _tidy(axis)


def _tidy(axis: Any) -> None:
    axis.spines[["top", "right"]].set_visible(False)
    axis.grid(axis="y", color="0.9", linewidth=0.8)
    axis.set_axisbelow(True)
    axis.tick_params(labelleft=True)
