"""The figure of the confirmation: each test's arms by kind, with intervals, every base, and chance."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from PIL import Image

from demo.statistics import estimate
from demo.winoground_sets import KINDS
from models.evaluation.winoground import CHANCE

if TYPE_CHECKING:
    from demo.report import Compared

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
    """A panel per test: bars are means over bases, seeds and items, and a dot is one base."""
    figure = Figure(figsize=(8, 3.2 * len(found)), layout="constrained")
    axes = figure.subplots(len(found), 1, squeeze=False)[:, 0]
    for axis, compared in zip(axes, found, strict=True):
        _draw_arms(axis, compared)
    return figure


def _draw_arms(axis: Any, compared: Compared) -> None:
    kinds = [None] if compared.places else [None, *KINDS]
    width = 0.84 / len(compared.arms)
    for place, (name, colour) in enumerate(zip(compared.arms, COLOURS, strict=False)):
        at = np.arange(len(kinds)) + (place - (len(compared.arms) - 1) / 2) * width
        values = [100 * compared.values(name, kind) for kind in kinds]
        estimates = [estimate(each).interval() for each in values]
        means = np.array([each.mean for each in estimates])
        ends = [each.high - each.mean for each in estimates]
        axis.bar(at, means, width * 0.92, color=colour, label=name)
        axis.errorbar(at, means, ends, fmt="none", ecolor="0.15", elinewidth=1, capsize=2)
        bases = np.stack([each.mean(axis=(1, 2)) for each in values])
        spread = np.linspace(-0.3, 0.3, bases.shape[1]) * width
        axis.plot((at[:, None] + spread).ravel(), bases.ravel(), "o", markersize=3, **DOT)
    axis.axhline(100 * CHANCE["group_match"], **CHANCE_LINE)
    axis.set_xticks(range(len(kinds)), [kind or "all" for kind in kinds])
    axis.set_ylim(0, 105)
    axis.set_ylabel("probe of places, %" if compared.places else "GroupMatch, %")
    axis.set_title(compared.name)
    axis.spines[["top", "right"]].set_visible(False)
    axis.grid(axis="y", color="0.9", linewidth=0.8)
    axis.set_axisbelow(True)
    handles, labels = axis.get_legend_handles_labels()
    handles += [
        Line2D([], [], linestyle="", marker="o", markersize=4, **DOT),
        Line2D([], [], **CHANCE_LINE),
    ]
    axis.legend(
        handles, [*labels, "one base", "chance"], loc="upper left", bbox_to_anchor=(1, 1), frameon=False
    )
