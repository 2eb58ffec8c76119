"""The tables, the page and the picture of a comparison, from the files of its runs and evaluations."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from sds_clip.models.atomic import write_atomic
from sds_clip.models.evaluation.report.words import NO_BREAK, p_value, percent, points, points_interval
from sds_clip.models.markdown import markdown_table
from sds_clip.models.pages import environment
from sds_clip.models.recipes.arms import Arms
from sds_clip.models.recipes.differences import Difference, Line, every_figure
from sds_clip.models.recipes.plan import BASE
from sds_clip.models.training.influence import teacher_had_no_say
from sds_clip.models.training.objective import TEACHER_WEIGHT
from sds_clip.models.training.watcher import Record

FIGURE = ("benchmark", "figure", "tag", "items", "chance %", "model", "%", "low", "high")
OVER = ("points", "low", "high", "p", "p Holm")
DIFFERENCE = (
    "benchmark", "figure", "items", "chance %", "recipe", "seeds", "%",
    *(f"{name} over {of}" for of in ("control", "base") for name in OVER),
)  # fmt: skip
_KEPT = ("zero-shot", "retrieval")
"""The benchmarks that say what a model has forgotten, the best first."""


def write_page(arms: Arms, found: Sequence[Line], shared: str) -> Path:
    """Write the tables, the picture and the page of these differences, and return the page's path."""
    _write_table(arms.out / "table.tsv", FIGURE, every_figure(arms))
    _write_table(arms.out / "differences.tsv", DIFFERENCE, map(_row, found))
    texts = environment(Path(__file__).parent, is_html=False)
    texts.globals["table"] = markdown_table
    picture = _points(arms, found)
    if picture:
        write_atomic(arms.out / "report.svg", texts.get_template("picture.svg.jinja").render(**picture))
    page = arms.out / "report.md"
    text = texts.get_template("page.md.jinja").render(
        plan=arms.plan, hash=arms.plan.hash, shared=shared, said=dict(_said(arms)), figures=shown(arms, found),
        costs=_costs(arms), recipes=_recipes(arms), picture=picture,
    )  # fmt: skip
    write_atomic(page, text)
    return page


def shown(arms: Arms, found: Sequence[Line]) -> tuple[list[str], list[list[str]]]:
    """Return the header and the lines of the page's table."""
    header = [
        "benchmark",
        "figure",
        "items",
        "chance",
        "model",
        "%",
        f"over {arms.plan.control}",
        "p",
        "over base",
        "p",
    ]
    rows = [
        [
            line.benchmark, line.figure, str(line.items), "" if line.chance is None else percent(line.chance),
            line.model, percent(line.value), *_cells(line.over_control), *_cells(line.over_base),
        ]
        for line in found
    ]  # fmt: skip
    return header, [[cell.replace(NO_BREAK, " ") for cell in row] for row in rows]


def _cells(of: Difference | None) -> tuple[str, str]:
    if of is None:
        return "", ""
    return f"{points(of.mean)} ({points_interval(of.low, of.high)})", "" if of.holm is None else p_value(
        of.holm
    )


def _row(line: Line) -> list[Any]:
    about = [
        line.benchmark,
        line.figure,
        line.items,
        line.chance and 100 * line.chance,
        line.model,
        len(line.by_seed),
    ]
    return [*about, 100 * line.value, *_numbers(line.over_control), *_numbers(line.over_base)]


def _numbers(of: Difference | None) -> list[float | None]:
    return [None] * len(OVER) if of is None else [100 * of.mean, 100 * of.low, 100 * of.high, of.p, of.holm]


def _write_table(file: Path, header: Sequence[str], rows: Iterator[list[Any]]) -> None:
    cells = ("\t".join(map(_cell, row)) for row in (list(header), *rows))
    write_atomic(file, "".join(f"{line}\n" for line in cells))


def _cell(value: object) -> str:
    return "" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)


def _said(arms: Arms) -> Iterator[tuple[str, str]]:
    """Whether a teacher had a say, by the name of its run, and the weight that `lambda: auto` gave it."""
    for recipe, seed in arms.plan.arms():
        records = arms.log(recipe, seed)
        if any("teacher_gradient_share" in each or "target_chance" in each for each in records):
            warning = teacher_had_no_say(records)
            weight = next(
                (each[TEACHER_WEIGHT] for each in reversed(records) if TEACHER_WEIGHT in each), None
            )
            said = "yes" if warning is None else f"no. {warning.message}"
            yield f"{recipe}-{seed}", said if weight is None else f"{said} (lambda {weight:.3g})"


def _costs(arms: Arms) -> tuple[list[str], list[list[str]]]:
    """Return a table of each recipe's speed, time and memory, as means over seeds."""
    rows = []
    for recipe in arms.plan.recipes:
        logs = [list(filter(_is_step, arms.log(recipe, seed))) for seed in arms.plan.seeds]
        if not all(logs):
            continue
        speed = fmean(fmean(each["examples_per_s"] for each in log[len(log) // 2 :]) for log in logs)
        batch = arms.plan.config(recipe, arms.plan.seeds[0]).batch_size
        hours = fmean(log[-1]["step"] for log in logs) * batch / speed / 3600
        peak = max(log[-1]["peak_memory_mib"] for log in logs)
        rows.append([recipe, f"{speed:.1f}", f"{hours:.2f}", f"{peak:.0f}"])
    return ["recipe", "examples/s", "hours a seed", "peak MiB"], rows


def _is_step(record: Record) -> bool:
    return "examples_per_s" in record


def _recipes(arms: Arms) -> list[tuple[str, Any, str]]:
    """Return the recipes by name, with their options as text."""
    found = ((name, arms.plan.recipe(name)) for name in arms.plan.recipes)
    return [
        (name, of, ", ".join(f"`{key}: {value}`" for key, value in of.options.items())) for name, of in found
    ]


def _points(arms: Arms, found: Sequence[Line]) -> dict[str, Any] | None:
    """Place each recipe by what it gained in the primary figure, and lost in zero-shot accuracy or else retrieval.

    None if neither was measured, or the primary outcome is one of them.
    """
    kept = next((name for name in _KEPT if name in arms.plan.benchmarks), None)
    if kept is None or kept == arms.plan.primary:
        return None
    across, up = (
        {line.model: line for line in reversed(found) if line.benchmark == name}
        for name in (kept, arms.plan.primary)
    )
    gained = {name: (across[name].over_base, up[name].over_base) for name in arms.plan.recipes}
    pairs = {name: (100 * x.mean, 100 * y.mean) for name, (x, y) in gained.items() if x and y}
    spans = [max(1.0, 1.15 * max(abs(pair[axis]) for pair in pairs.values())) for axis in (0, 1)]
    places = [
        {"name": name, "x": 320 + 260 * x / spans[0], "y": 200 - 160 * y / spans[1]}
        for name, (x, y) in pairs.items()
    ]
    return {
        "places": places, "x_end": f"{spans[0]:.1f}", "y_end": f"{spans[1]:.1f}", "base": BASE,
        "across": f"{kept}: {across[BASE].figure}", "up": f"{arms.plan.primary}: {up[BASE].figure}",
    }  # fmt: skip
