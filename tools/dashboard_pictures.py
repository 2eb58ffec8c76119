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

COLUMNS = 24
"""Of a dashboard's grid."""
WIDTH, ROW_HEIGHT = 15.0, 0.42  # in inches
DPI = 100
LEGEND_LETTERS = 76
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
    figure = Figure(figsize=(WIDTH, rows * ROW_HEIGHT), layout="constrained")
    figure.suptitle(title, x=0.006, ha="left", fontsize=14, weight="bold")
    grid = figure.add_gridspec(rows, COLUMNS)
    minutes = [(at - moments[0]) / 60 for at in moments]
    for panel in panels:
        place = panel.position
        across = slice(place["x"], place["x"] + place["w"])
        axes = figure.add_subplot(grid[place["y"] : place["y"] + place["h"], across])
        axes.set_title(panel.title, loc="left", fontsize=10, weight="bold")
        _draw_lines(axes, panel, minutes)
    plain = io.BytesIO()
    figure.savefig(plain, dpi=DPI)
    small = io.BytesIO()
    # A palette makes the file a third as large.
    Image.open(plain).convert("RGB").quantize(96).save(small, "PNG", optimize=True)
    return small.getvalue()


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
        return
    longest = max(len(line.name) for line in panel.lines)
    columns = max(1, min(len(panel.lines), LEGEND_LETTERS * panel.position["w"] // 8 // (longest + 7)))
    axes.legend(loc="upper left", bbox_to_anchor=(-0.02, -0.1), ncols=columns, fontsize=8, frameon=False)


if __name__ == "__main__":
    main()
