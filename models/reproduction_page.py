"""The page and the table of a reproduction, from the files of its runs and evaluations."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from sds_clip.models.atomic import write_atomic
from sds_clip.models.evaluation.report.words import NO_BREAK, p_value, percent, points, points_interval
from sds_clip.models.evaluation.results import GROUP_MATCH
from sds_clip.models.evaluation.retrieval import TEXT_RETRIEVAL
from sds_clip.models.markdown import markdown_table
from sds_clip.models.pages import environment
from sds_clip.models.reproduction import (
    BASE,
    CONTROL,
    FIGURE,
    OVER,
    SDS,
    Reproduction,
    Row,
    described,
    over_seeds,
    planned,
    read_results,
    say_of_teacher,
    table,
)
from sds_clip.models.run_files import LOG_FILE
from sds_clip.models.training.config import FinetuneConfig
from sds_clip.models.training.log import read_log
from sds_clip.models.training.run import OPERATIONAL

_SHOWN = ("acc", GROUP_MATCH, f"{TEXT_RETRIEVAL}@1")
"""What the page shows beside each primary figure. `acc` has the paired test that a mean over tags lacks."""


def write_page(work: Reproduction) -> Path:
    """Write the table and the page, and return the page's path."""
    rows = table(work)
    lines = [[*FIGURE, *OVER], *([_cell(value) for value in row.values()] for row in rows)]
    write_atomic(work.out / "table.tsv", "".join("\t".join(line) + "\n" for line in lines))
    page = work.out / "report.md"
    write_atomic(page, _page(work, rows))
    return page


def _cell(value: object) -> str:
    return "" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)


def _page(work: Reproduction, rows: Sequence[Row]) -> str:
    config = work.config
    texts = environment(Path(__file__).parent, is_html=False)
    texts.globals["table"] = markdown_table
    return texts.get_template("reproduction.md.jinja").render(
        config.model_dump(include={"base", "teacher", "batch_size", "sds_weight"}),
        length=f"{config.steps} steps" if config.steps else f"{config.epochs:g} epochs",
        sds_batch_size=config.teacher_batch_size,
        left_out=_left_out(work),
        said={seed: say_of_teacher(work, seed) for seed in work.seeds},
        figures=shown(work, rows),
        has_primary=any(each.benchmark == "winoground" for each in work.benchmarks),
        computed=_computed(work),
        options=[f"`{name}: {value}`" for name, value in _changed(config)],
    )


def _left_out(work: Reproduction) -> str:
    """What this folder was begun with and the page does not show, as a sentence."""
    plan, asked = planned(work), {*(each.benchmark for each in work.benchmarks), *work.also}
    names = [name for name in (*plan["benchmarks"], *plan["also"]) if name not in asked]
    return f" In this folder but not on this page: {', '.join(names)}." if names else ""


def shown(work: Reproduction, rows: Sequence[Row]) -> tuple[list[str], list[list[str]]]:
    """Return the header and the lines of the page's table: for each figure one of each seed, and one of their mean."""
    header = [
        "benchmark", "figure", "items", "chance", BASE, "seed", CONTROL, SDS, "difference", "p", *work.also,
    ]  # fmt: skip
    figures: dict[tuple[str, str], dict[str, Row]] = {}
    for row in rows:
        if not row["tag"]:
            figures.setdefault((row["benchmark"], row["figure"]), {})[row["model"]] = row
    first = dict(reversed(figures))  # the primary figure
    lines = []
    for (benchmark, name), of in figures.items():
        if name not in (first[benchmark], *_SHOWN):
            continue
        about, others = of[BASE], [_share(of[model]) for model in work.also]
        start = [benchmark, name, str(about["items"]), _share(about, "chance %"), _share(about)]
        for seed in work.seeds:
            control, run = of[f"{CONTROL}-{seed}"], of[f"{SDS}-{seed}"]
            lines.append([*start, str(seed), _share(control), _share(run), *_difference(run), *others])
        if len(work.seeds) > 1:
            control_mean, mean = (
                fmean(of[f"{model}-{seed}"]["%"] for seed in work.seeds) / 100 for model in (CONTROL, SDS)
            )
            difference = _over_seeds(work, benchmark, name, mean - control_mean)
            lines.append([*start, "mean", percent(control_mean), percent(mean), *difference, *others])
    return header, [[cell.replace(NO_BREAK, " ") for cell in line] for line in lines]


def _share(row: Row, name: str = "%") -> str:
    return "" if row[name] is None else percent(row[name] / 100)


def _difference(row: Row) -> tuple[str, str]:
    difference, low, high = (
        None if row[name] is None else row[name] / 100
        for name in ("points over control", "points low", "points high")
    )
    if difference is None or low is None or high is None:
        return "", ""
    p = row["p two-sided"]
    return f"{points(difference)} ({points_interval(low, high)})", "" if p is None else p_value(p)


def _over_seeds(work: Reproduction, benchmark: str, figure: str, difference: float) -> tuple[str, str]:
    found = over_seeds(work, benchmark, figure)
    if found is None:
        return points(difference), ""
    of = found.interval()
    ends = points_interval(max(of.low, -1.0), min(of.high, 1.0))  # few seeds have wide intervals
    return f"{points(difference)} ({ends})", p_value(found.p)


def _computed(work: Reproduction) -> tuple[list[str], list[list[str]]]:
    """Return a table of each model's version, and of the speed and memory of each run."""
    header = [
        "model", "reference", "version", "training data", "examples/s", "peak MiB", "device", "code", "torch",
    ]  # fmt: skip
    lines = []
    benchmark = work.benchmarks[0].benchmark
    for model in work.measured():
        folder = work.evaluation_folder(benchmark, model)
        if (folder / "baseline.json").exists():
            control = model.replace(SDS, CONTROL)
            lines.append([control, *_facts(work, control, read_results(folder / "baseline.json"))])
        lines.append([model, *_facts(work, model, read_results(folder / "results.json"))])
    return header, lines


def _facts(work: Reproduction, model: str, results: dict[str, Any]) -> list[str]:
    about = results["provenance"]
    start = [str(about["model"]).replace(f"{work.out}/", ""), about["model_version"][:12]]
    end = [about["device"], about["code_version"], about["torch"]]
    log = [record for record in read_log(work.run_folder(model) / LOG_FILE) if "examples_per_s" in record]
    if not log:
        return [*start, "", "", "", *end]
    speed = fmean(record["examples_per_s"] for record in log[len(log) // 2 :])
    data = described(work.delta(model))["data_hash"][:12]
    # On a CPU, the peak is that of the process, and so of all runs before.
    peak = "" if about["device"] == "cpu" else f"{log[-1]['peak_memory_mib']:.0f}"
    return [*start, data, f"{speed:.1f}", peak, *end]


def _changed(config: FinetuneConfig) -> Iterator[tuple[str, object]]:
    for name, field in type(config).model_fields.items():
        value = getattr(config, name)
        if name not in {*OPERATIONAL, "seed", "base", "teacher", "sds_weight"} and value != field.default:
            yield name, value
