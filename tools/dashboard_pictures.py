"""Draw what Prometheus has for the dashboards: `make dashboard-pictures`.

A real system works for some minutes (tools/dashboard_load.py), and a real Prometheus scrapes it every second. It is
asked for what each panel of docker/monitoring/grafana/dashboards asks for, and matplotlib draws the answers in the
dashboard's grid, with its titles, units and legends. The pictures show the data, and not how Grafana looks.
"""

import io
import json
import math
import re
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator
from PIL import Image

from tests.monitoring.prometheus import DASHBOARDS, HOW, ONLY_WITH_A_GPU, PROMETHEUS, Prometheus, selectors
from tools.dashboard_load import monitored_load

OUT = Path(__file__).parents[1] / "docs" / "assets" / "images"
RATE_INTERVAL = "15s"
POINTS = 300
"""Values of a line, at most."""

# Okabe and Ito's colours, which the colour-blind can tell apart, without yellow. The next round is dashed.
COLOURS = ("#0072b2", "#e69f00", "#009e73", "#d55e00", "#56b4e9", "#cc79a7", "#000000")
STYLES = ("-", (0, (4, 1.5)), (0, (1, 1)))
UNITS: dict[str, tuple[tuple[float, str], ...]] = {
    "s": ((86400, " d"), (3600, " h"), (60, " min"), (1, " s"), (1e-3, " ms")),
    "bytes": ((2**30, " GiB"), (2**20, " MiB"), (2**10, " KiB"), (1, " B")),
    "percentunit": ((0.01, " %"),),
    "reqps": ((1, " req/s"),),
    "short": ((1e3, " K"), (1, "")),
}
"""Grafana's units that the dashboards use: sizes and their names, the largest first."""

# In inches.
WIDTH, UNIT_HEIGHT, HEADER = 15.0, 0.4, 0.5
GAP, TITLE, LEFT, RIGHT, TICKS, LEGEND_ROW = 0.06, 0.34, 0.74, 0.26, 0.32, 0.17
COLUMNS = 24
DPI = 100
LEGEND_LETTERS = 84
"""Small letters that fit beside each other in a panel of a third of the width."""


class NoData(Exception):
    """A panel would be empty. The message names it."""


@dataclass(frozen=True)
class Line:
    """A time series: a value for each moment, NaN where there is none."""

    name: str
    values: list[float]


@dataclass(frozen=True)
class Panel:
    """What a panel shows. Without a GPU, the one of its memory has no lines."""

    title: str
    position: dict[str, int]
    defaults: dict[str, Any]
    lines: list[Line]


def main() -> None:
    if PROMETHEUS is None:
        raise SystemExit(f"prometheus {HOW}")
    with (
        tempfile.TemporaryDirectory(prefix="sds-clip-dashboards-") as folder,
        monitored_load(Path(folder)) as (prometheus, start, end),
    ):
        step = max(1, math.ceil((end - start) / POINTS))
        moments = [start + step * number for number in range(int((end - start) / step) + 1)]
        for dashboard in DASHBOARDS:
            try:
                panels = ask(prometheus, dashboard, moments)
            except NoData as error:
                raise SystemExit(str(error)) from None
            file = OUT / f"dashboard-{dashboard.stem}.png"
            file.write_bytes(draw(json.loads(dashboard.read_text())["title"], panels, moments))
            print(f"{file}: {len(panels)} panels, {file.stat().st_size / 1e3:.0f} kB")


def ask(prometheus: Prometheus, dashboard: Path, moments: Sequence[float]) -> list[Panel]:
    """Ask for every query of a dashboard at evenly spaced moments.

    Raises: NoData if a query has none, unless it is about a GPU.
    """
    panels = []
    for panel in json.loads(dashboard.read_text())["panels"]:
        lines = []
        for target in panel["targets"]:
            found = _lines(prometheus, target["expr"], target["legendFormat"], moments)
            if not found and not ONLY_WITH_A_GPU.intersection(selectors(target["expr"])):
                raise NoData(f'{dashboard.name}: "{panel["title"]}" has no data for {target["expr"]}')
            lines += found
        panels.append(Panel(panel["title"], panel["gridPos"], panel["fieldConfig"]["defaults"], lines))
    return panels


def _lines(prometheus: Prometheus, expression: str, legend: str, moments: Sequence[float]) -> list[Line]:
    asked = expression.replace("$__rate_interval", RATE_INTERVAL)
    lines = []
    for series in prometheus.query_range(asked, moments[0], moments[-1], moments[1] - moments[0]):
        name = legend
        for label in re.findall(r"{{(\w+)}}", legend):
            name = name.replace(f"{{{{{label}}}}}", series["metric"].get(label, ""))
        known = {round(at, 1): float(value) for at, value in series["values"]}
        line = Line(name.strip(), [known.get(round(at, 1), math.nan) for at in moments])
        if not all(map(math.isnan, line.values)):
            lines.append(line)
    return lines


def draw(title: str, panels: Sequence[Panel], moments: Sequence[float]) -> bytes:
    """Draw the panels in their grid, as a PNG."""
    rows = max(panel.position["y"] + panel.position["h"] for panel in panels)
    height = HEADER + rows * UNIT_HEIGHT
    figure = Figure(figsize=(WIDTH, height), facecolor="#f4f5f5")
    figure.text(0.006, 1 - 0.5 * HEADER / height, title, fontsize=14, weight="bold", va="center")
    minutes = [(at - moments[0]) / 60 for at in moments]
    for panel in panels:
        _draw_panel(figure, height, panel, minutes)
    plain = io.BytesIO()
    figure.savefig(plain, dpi=DPI)
    small = io.BytesIO()
    # A palette makes the file a third as large.
    Image.open(plain).convert("RGB").quantize(96).save(small, "PNG", optimize=True)
    return small.getvalue()


def _draw_panel(figure: Figure, height: float, panel: Panel, minutes: list[float]) -> None:
    place = panel.position
    left, width = place["x"] * WIDTH / COLUMNS + GAP, place["w"] * WIDTH / COLUMNS - 2 * GAP
    top = height - HEADER - place["y"] * UNIT_HEIGHT - GAP
    tall = place["h"] * UNIT_HEIGHT - 2 * GAP
    corner = (left / WIDTH, (top - tall) / height)
    box = Rectangle(corner, width / WIDTH, tall / height, facecolor="white", edgecolor="#d8d9da", zorder=-1)
    figure.add_artist(box)
    figure.text(
        (left + 0.1) / WIDTH, (top - TITLE / 2) / height, panel.title, fontsize=10, weight="bold", va="center"
    )
    longest = max((len(line.name) for line in panel.lines), default=0)
    columns = max(1, min(len(panel.lines), LEGEND_LETTERS * place["w"] // 8 // (longest + 7)))
    below = TICKS + LEGEND_ROW * math.ceil(len(panel.lines) / columns) + 0.1
    axes = figure.add_axes(
        (
            (left + LEFT) / WIDTH,
            (top - tall + below) / height,
            (width - LEFT - RIGHT) / WIDTH,
            (tall - TITLE - below) / height,
        )
    )
    _draw_lines(axes, panel, minutes)
    if panel.lines:
        corner = ((left + 0.05) / WIDTH, (top - tall + 0.02) / height)
        handles, names = axes.get_legend_handles_labels()
        figure.legend(
            handles, names, loc="lower left", bbox_to_anchor=corner, ncols=columns, fontsize=8, frameon=False,
            borderpad=0.2, labelspacing=0.25, columnspacing=1.2, handlelength=2, handletextpad=0.5,
        )  # fmt: skip


def _draw_lines(axes: Axes, panel: Panel, minutes: list[float]) -> None:
    largest = max((value for line in panel.lines for value in line.values if value == value), default=1.0)
    sizes = UNITS[panel.defaults["unit"]]
    size, unit = next((each for each in sizes if largest >= each[0]), sizes[-1])
    for number, line in enumerate(panel.lines):
        # Of a few lines at the same height, those behind are wider, so that all are seen.
        behind = len(panel.lines) - 1 - number if len(panel.lines) <= 3 else 0
        axes.plot(
            minutes,
            [value / size for value in line.values],
            label=line.name,
            color=COLOURS[number % len(COLOURS)],
            linestyle=STYLES[number // len(COLOURS) % len(STYLES)],
            linewidth=1.4 + behind,
        )
    bottom, top = axes.get_ylim()
    if "min" in panel.defaults:
        bottom = panel.defaults["min"] / size
        top = max(1.08 * largest, panel.defaults.get("max", 0) * 1.05) / size or 1.0
    axes.set_ylim(bottom, top)
    axes.set_xlim(minutes[0], minutes[-1])
    axes.yaxis.set_major_locator(MaxNLocator(5, integer=not unit))
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}{unit}")
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g} min")
    axes.tick_params(labelsize=8, length=0, pad=4, colors="#444")
    axes.tick_params("x", pad=6)
    axes.grid(color="#e4e5e6", linewidth=0.7)
    axes.spines[:].set_visible(False)
    if not panel.lines:
        axes.text(0.5, 0.5, "No data: no GPU", transform=axes.transAxes, ha="center", va="center")
        axes.set_yticks([])


if __name__ == "__main__":
    main()
