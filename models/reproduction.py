"""A reproduction of the paper: SDS-CLIP and its control, trained alike, measured beside the base, and compared.

    OUT/plan.json                         what the folder was begun with
    OUT/runs/control-0, sds-clip-0        the runs of a seed (`models.run_files`)
    OUT/evaluations/BENCHMARK/MODEL/      a model's results; those of sds-clip-0 are compared with those of control-0
    OUT/table.tsv                         every figure of every model
    OUT/report.md                         the page
    OUT/cache, captions                   features and caption embeddings, which may be deleted

Every file appears whole or not at all, and what is there is not made again. So a reproduction that was killed continues
where it was.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

from models.atomic import write_atomic
from models.errors import TrainingError
from models.evaluation.evaluation import Evaluation, Evaluator, write_evaluation
from models.evaluation.report.words import NO_BREAK, p_value, percent, points, points_interval
from models.evaluation.request import EvaluationRequest
from models.evaluation.results import GROUP_MATCH, write_json
from models.evaluation.retrieval import TEXT_RETRIEVAL
from models.references import DESCRIPTION_FILE
from models.run_files import LOG_FILE
from models.training.config import FinetuneConfig
from models.training.influence import (
    MIN_GRADIENT_SHARE,
    MIN_RESIDUAL_GAP,
    influence_figures,
    teacher_had_no_say,
)
from models.training.log import read_log
from models.training.run import OPERATIONAL

BASE, CONTROL, SDS = "base", "control", "sds-clip"
_PARTS = ("options", "benchmarks", "also")
_FORMAT = 1
_FIGURE = ("benchmark", "figure", "items", "chance %", "model", "%", "low", "high")
_OVER = ("points over control", "points low", "points high", "gained", "lost", "p better", "p two-sided")
_SHOWN = ("acc", GROUP_MATCH, f"{TEXT_RETRIEVAL}@1")
"""What the page shows beside each primary figure. `acc` has the paired test that a mean over tags lacks."""
_PAIR = ("base_version", "data_hash", "data_size")
"""What both runs of a seed must have in common beside their options."""

Row = dict[str, Any]
"""A figure of a model: a line of the table. Shares are in percent, and what does not exist is None."""


@dataclass(frozen=True, kw_only=True)
class Reproduction:
    """What is trained and measured, and where it is kept."""

    config: FinetuneConfig
    """SDS-CLIP's options. The control has the same ones except for the objective, and each seed replaces `seed`."""
    seeds: tuple[int, ...]
    benchmarks: tuple[EvaluationRequest, ...]
    """Evaluations of the base."""
    also: Mapping[str, str]
    """References of further models, by name."""
    out: Path

    def runs(self, seed: int) -> dict[str, FinetuneConfig]:
        """Return the runs of a seed by name, the control first."""
        return {
            f"{CONTROL}-{seed}": self.config.model_copy(update={"seed": seed, "objective": "clip"}),
            f"{SDS}-{seed}": self.config.model_copy(update={"seed": seed}),
        }

    def run_folder(self, name: str) -> Path:
        return self.out / "runs" / name

    def delta(self, name: str) -> Path:
        return self.run_folder(name) / "delta"

    def measured(self) -> dict[str, tuple[str, str | None]]:
        """Return the references of each model and of what it is compared with, by name.

        The controls are measured when they are compared with.
        """
        of_seeds = {
            f"{SDS}-{seed}": (
                f"local-dir:{self.delta(f'{SDS}-{seed}')}",
                f"local-dir:{self.delta(f'{CONTROL}-{seed}')}",
            )
            for seed in self.seeds
        }
        others = {name: (reference, None) for name, reference in self.also.items()}
        return {BASE: (self.config.base, None), **of_seeds, **others}

    def evaluation_folder(self, benchmark: str, model: str) -> Path:
        return self.out / "evaluations" / benchmark / model


def begin(work: Reproduction) -> None:
    """Write what is asked for into the folder, or check that the folder was begun with the same.

    Seeds, benchmarks and models may be added later. Raises TrainingError if something else differs.
    """
    file = work.out / "plan.json"
    options = work.config.model_dump(mode="json", exclude={*OPERATIONAL, "seed"})
    places = {name: str(path) for name in ("data", "images", "val") if (path := getattr(work.config, name))}
    asked: dict[str, dict[str, Any]] = {
        "options": {**options, **places},
        "benchmarks": {each.benchmark: _place(each) for each in work.benchmarks},
        "also": dict(work.also),
    }
    before = _begun(file) if file.exists() else {}
    changes = [
        f"{name}: {before[part][name]} -> {value}"
        for part, values in asked.items()
        for name, value in values.items()
        if before and before[part].get(name, value) != value
    ]
    if changes:
        raise TrainingError(
            f"{work.out} was begun with other options: {'; '.join(changes)}. Restore them, or use another --out."
        )
    write_json(file, {"format": _FORMAT} | {part: before.get(part, {}) | asked[part] for part in asked})


def _begun(file: Path) -> dict[str, Any]:
    try:
        before: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        if before["format"] == _FORMAT and all(isinstance(before[part], dict) for part in _PARTS):
            return before
    except (ValueError, TypeError, KeyError):
        pass
    raise TrainingError(f"{file} is not of a reproduction by this version; use another --out.")


def _place(asked: EvaluationRequest) -> str:
    given = (asked.data, asked.images, asked.classes, asked.templates)
    return ", ".join(str(value) for value in given if value is not None)


def measure(work: Reproduction, evaluator: Evaluator, model: str) -> Iterator[Evaluation]:
    """Evaluate a model on each benchmark on which it has no results yet, and write them.

    Raises: as `Evaluator.evaluate`.
    """
    reference, baseline = work.measured()[model]
    for asked in work.benchmarks:
        folder = work.evaluation_folder(asked.benchmark, model)
        if not (folder / "report.html").exists():  # which is written last
            found = evaluator.evaluate(replace(asked, model=reference, baseline=baseline))
            write_evaluation(folder, found)
            yield found


def check_alike(work: Reproduction, seed: int) -> None:
    """Check that both runs of a seed started from the same base, with the same data and options.

    Raises TrainingError, which names what differs.
    """
    control, run = (_described(work.delta(name)) for name in work.runs(seed))
    base = _read(work.evaluation_folder(work.benchmarks[0].benchmark, BASE) / "results.json")["provenance"]
    if control["base_version"] != base["model_version"]:
        raise TrainingError(
            f"{work.config.base} has other weights now than when it was evaluated. Use another --out."
        )
    ignored = {*OPERATIONAL, "objective"}
    differs = [
        name
        for name in control.keys() | run.keys()
        if name not in ignored and control.get(name) != run.get(name)
    ]
    if differs:
        raise TrainingError(
            f"The control and the run of seed {seed} differ in {', '.join(sorted(differs))}, so they cannot be "
            f"compared. Remove both from {work.out / 'runs'}, and their evaluations, and run the command again."
        )


def _described(delta: Path) -> dict[str, Any]:
    """Return what a run's result depends on."""
    content = json.loads((delta / DESCRIPTION_FILE).read_text(encoding="utf-8"))
    found: dict[str, Any] = content["configuration"] | {name: content["data"][name] for name in _PAIR}
    return found


def say_of_teacher(work: Reproduction, seed: int) -> str:
    """Return whether the teacher had a say in a run: go or no go, and by which figures of its log."""
    records = list(read_log(work.run_folder(f"{SDS}-{seed}") / LOG_FILE))
    figures = influence_figures(records)
    said = (
        f"on the image features, the gradient of the teacher's loss was {figures['teacher_gradient_share']:.3g} times "
        f"that of L_CLIP (needed: {MIN_GRADIENT_SHARE:g})"
    )
    if "residual_gap" in figures:
        said += (
            f", and the captions of other samples changed the residual by {figures['residual_gap']:+.2%} (needed: "
            f"{MIN_RESIDUAL_GAP:+.0%} and two standard errors)"
        )
    if teacher_had_no_say(records) is None:
        return f"go. In the second half of the run, {said}."
    return (
        f"no go. In the second half of the run, {said}. In effect, this is a run without a teacher. Raise lambda, or "
        "let the mapper begin better (mapper_start or mapper_warmup_steps)."
    )


def table(work: Reproduction) -> list[Row]:
    """Return every figure of every model, by benchmark, from the evaluations' files."""
    return [
        row
        for asked in work.benchmarks
        for model in work.measured()
        for row in _rows(work.evaluation_folder(asked.benchmark, model), model)
    ]


def _rows(folder: Path, model: str) -> Iterator[Row]:
    comparison = _read(folder / "comparison.json")
    if comparison:
        control = model.replace(SDS, CONTROL)
        yield from _figures(_read(folder / "baseline.json"), control, {})
    yield from _figures(_read(folder / "results.json"), model, comparison)


def _read(file: Path) -> dict[str, Any]:
    return json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}


def _figures(results: dict[str, Any], model: str, comparison: dict[str, Any]) -> Iterator[Row]:
    for name in sorted(results["metrics"], key=lambda name: name != results["primary"]):
        metric = results["metrics"][name]
        chance, value, low, high = (_percent(metric.get(end)) for end in ("chance", "value", "low", "high"))
        of = (results["benchmark"], name, metric["n"], chance, model, value, low, high)
        yield dict(zip(_FIGURE, of, strict=True)) | _over(name, metric, comparison)


def _over(name: str, metric: dict[str, Any], comparison: dict[str, Any]) -> Row:
    """The difference from the control: of an outcome, or of a mean over tags, of which there is no test."""
    macro = comparison.get("macro") or {}
    of = comparison.get("outcomes", {}).get(metric.get("outcome"))
    of = of or (macro if macro.get("metric") == name else {})
    counts = of.get("counts", {})
    ends = [_percent(of.get(end)) for end in ("difference", "low", "high")]
    tests = [counts.get("gained"), counts.get("lost"), of.get("p_better"), of.get("p_two_sided")]
    return dict(zip(_OVER, [*ends, *tests], strict=True))


def _percent(share: float | None) -> float | None:
    return None if share is None else 100 * share


def write_page(work: Reproduction) -> Path:
    """Write the table and the page, and return the page's path."""
    rows = table(work)
    lines = [[*_FIGURE, *_OVER], *([_cell(value) for value in row.values()] for row in rows)]
    write_atomic(work.out / "table.tsv", "".join("\t".join(line) + "\n" for line in lines))
    page = work.out / "report.md"
    write_atomic(page, _page(work, rows))
    return page


def _cell(value: object) -> str:
    return "" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)


_PAGE = """\
# SDS-CLIP on {base}

Teacher: {teacher}. {length} with {batch_size} pairs a step, {sds_batch_size} for the teacher. Lambda: {sds_weight:g}.
Seeds: {seeds}. The control is the same run without the teacher: the same base, data, order, options and seed.

## Did the teacher have a say?

{say}

## Figures

{figures}

Figures are in percent, and differences in points, with their 95 % intervals by a paired bootstrap over the items. p is
McNemar's exact test, two-sided, of SDS-CLIP against the control of its seed. It is not corrected for the number of
rows, and a mean over tags has none. A tie counts as wrong. A gain of SDS-CLIP is a gain over its control, since
fine-tuning on captions changes these figures by itself. Below chance, noise alone raises a score. `table.tsv` has all
figures, and each folder of `evaluations/` a `report.html` with the items that changed.

## What was computed

{computed}

Options that differ from the defaults: {options}.
"""


def _page(work: Reproduction, rows: Sequence[Row]) -> str:
    config = work.config
    return _PAGE.format(
        **config.model_dump(include={"base", "teacher", "batch_size", "sds_weight"}),
        length=f"{config.steps} steps" if config.steps else f"{config.epochs:g} epochs",
        sds_batch_size=config.teacher_batch_size,
        seeds=", ".join(map(str, work.seeds)),
        say="\n".join(f"- Seed {seed}: {say_of_teacher(work, seed)}" for seed in work.seeds),
        figures=_markdown(*shown(work, rows)),
        computed=_markdown(*_computed(work)),
        options=", ".join(f"`{name}: {value}`" for name, value in _changed(config)) or "none",
    )


def shown(work: Reproduction, rows: Sequence[Row]) -> tuple[list[str], list[list[str]]]:
    """Return the header and the lines of the page's table: for each figure one of each seed, and one of their mean."""
    header = [
        "benchmark", "figure", "items", "chance", BASE, "seed", CONTROL, SDS, "difference", "p", *work.also,
    ]  # fmt: skip
    figures: dict[tuple[str, str], dict[str, Row]] = {}
    for row in rows:
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
            difference = points(mean - control_mean)
            lines.append([*start, "mean", percent(control_mean), percent(mean), difference, "", *others])
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
            lines.append([control, *_facts(work, control, _read(folder / "baseline.json"))])
        lines.append([model, *_facts(work, model, _read(folder / "results.json"))])
    return header, lines


def _facts(work: Reproduction, model: str, results: dict[str, Any]) -> list[str]:
    about = results["provenance"]
    start = [str(about["model"]).replace(f"{work.out}/", ""), about["model_version"][:12]]
    end = [about["device"], about["code_version"], about["torch"]]
    log = [record for record in read_log(work.run_folder(model) / LOG_FILE) if "examples_per_s" in record]
    if not log:
        return [*start, "", "", "", *end]
    speed = fmean(record["examples_per_s"] for record in log[len(log) // 2 :])
    data = _described(work.delta(model))["data_hash"][:12]
    return [*start, data, f"{speed:.1f}", f"{log[-1]['peak_memory_mib']:.0f}", *end]


def _changed(config: FinetuneConfig) -> Iterator[tuple[str, object]]:
    for name, field in type(config).model_fields.items():
        value = getattr(config, name)
        if name not in {*OPERATIONAL, "seed", "base", "teacher"} and value != field.default:
            yield name, value


def _markdown(header: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    rows = [header, ["---"] * len(header), *lines]
    return "\n".join(f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |" for cells in rows)
