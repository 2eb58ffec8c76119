"""The figure of the confirmation: each test's arms by measure, with intervals, every base, and chance."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from PIL import Image

from sds_clip.demo.compared import MEASURES, Compared, Measure
from sds_clip.demo.winoground_sets import KINDS
from sds_clip.models.evaluation.estimate import estimate

PANELS = [
    ("GroupMatch", *KINDS),
    ("d'",),
    ("group score",),
    ("retrieval",),
    ("zero-shot",),
    ("places, image",),
]
"""The names of the measures that share a panel. The first one names it."""
COLOURS = ("0.6", "#4477aa", "#228833", "#ccbb44")
DOT: dict[str, Any] = {"markerfacecolor": "white", "markeredgecolor": "0.15", "markeredgewidth": 0.7}
CHANCE_LINE: dict[str, Any] = {"color": "0.3", "linewidth": 1, "linestyle": ":"}


def write_figure(found: Sequence[Compared], file: Path) -> None:
    """Save the figure as a palette PNG, about a third of the size of an RGB one."""
    drawn = BytesIO()
    draw(found).savefig(drawn, format="png", dpi=120)
    image = Image.open(drawn).convert("RGB")
    image.quantize(128, dither=Image.Dither.NONE).save(file, format="PNG", optimize=True)


def draw(found: Sequence[Compared]) -> Figure:
    """A row of panels per test: bars are means over bases, seeds and items, and a dot is one base."""
    figure = Figure(figsize=(14, 3 * len(found)), layout="constrained")
    figure.suptitle("Means over bases, seeds and items, with 95 % intervals")
    for rows, compared in zip(figure.subfigures(len(found), 1, squeeze=False)[:, 0], found, strict=True):
        rows.suptitle(compared.name, x=0, ha="left", weight="bold")
        axes = rows.subplots(1, len(PANELS), width_ratios=[1 + len(names) for names in PANELS])
        for axis, names in zip(axes, PANELS, strict=True):
            _draw_panel(axis, compared, [each for each in MEASURES if each.name in names])
        handles, labels = axes[0].get_legend_handles_labels()
        handles += [
            Line2D([], [], linestyle="", marker="o", markersize=4, **DOT),
            Line2D([], [], **CHANCE_LINE),
        ]
        rows.legend(handles, [*labels, "one base", "chance"], loc="outside right center", frameon=False)
    return figure


def _draw_panel(axis: Any, compared: Compared, measures: Sequence[Measure]) -> None:
    width = 0.84 / len(compared.arms)
    unit = 100 if measures[0].percent else 1
    for place, ((name, runs), colour) in enumerate(zip(compared.arms.items(), COLOURS, strict=False)):
        at = np.arange(len(measures)) + (place - (len(compared.arms) - 1) / 2) * width
        values = [unit * each.values(runs) for each in measures]
        estimates = [estimate(each).interval() for each in values]
        means = np.array([each.mean for each in estimates])
        ends = [each.high - each.mean for each in estimates]
        axis.bar(at, means, width * 0.92, color=colour, label=name)
        axis.errorbar(at, means, ends, fmt="none", ecolor="0.15", elinewidth=1, capsize=2)
        bases = np.stack([each.mean(axis=(1, 2)) for each in values])
        spread = np.linspace(-0.3, 0.3, bases.shape[1]) * width
        axis.plot((at[:, None] + spread).ravel(), bases.ravel(), "o", markersize=3, **DOT)
    axis.axhline(unit * measures[0].chance, **CHANCE_LINE)
    kinds = ["all", *(each.name for each in measures[1:])] if len(measures) > 1 else [""]
    axis.set_xticks(range(len(measures)), kinds)
    axis.set_title(f"{measures[0].name}, %" if measures[0].percent else measures[0].name)
    if measures[0].percent:
        axis.set_ylim(0, 105)
    axis.spines[["top", "right"]].set_visible(False)
    axis.grid(axis="y", color="0.9", linewidth=0.8)
    axis.set_axisbelow(True)
