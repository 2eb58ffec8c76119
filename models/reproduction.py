"""A reproduction of the paper: SDS-CLIP and its control, trained alike, measured beside the base, and compared.

    OUT/plan.json                         what the folder was begun with
    OUT/runs/control-0, sds-clip-0        the runs of a seed (`sds_clip.models.run_files`)
    OUT/evaluations/BENCHMARK/MODEL/      a model's results; those of sds-clip-0 are compared with those of control-0
    OUT/table.tsv                         every figure of every model
    OUT/report.md                         the page
    OUT/cache, captions                   features and caption embeddings, which may be deleted

Every file appears whole or not at all, and what is there is not made again. So a reproduction that was killed continues
where it was.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sds_clip.models.checkpoints.references import DESCRIPTION_FILE
from sds_clip.models.errors import TrainingError
from sds_clip.models.evaluation.estimate import Estimate, estimate
from sds_clip.models.evaluation.evaluation import Evaluation, Evaluator, write_evaluation
from sds_clip.models.evaluation.request import EvaluationRequest
from sds_clip.models.evaluation.results import write_json
from sds_clip.models.run_files import LOG_FILE
from sds_clip.models.training.config import FinetuneConfig
from sds_clip.models.training.influence import (
    MIN_GRADIENT_SHARE,
    MIN_RESIDUAL_GAP,
    influence_figures,
    teacher_had_no_say,
)
from sds_clip.models.training.log import read_log
from sds_clip.models.training.run import OPERATIONAL

if TYPE_CHECKING:
    from sds_clip.models.clip.model import Clip
    from sds_clip.models.evaluation.benchmark import Benchmark

BASE, CONTROL, SDS = "base", "control", "sds-clip"
FOLDERS = RUNS, EVALUATIONS = "runs", "evaluations"
_PARTS = ("options", "benchmarks", "also")
_FORMAT = 1
FIGURE = ("benchmark", "figure", "tag", "items", "chance %", "model", "%", "low", "high")
OVER = ("points over control", "points low", "points high", "gained", "lost", "p better", "p two-sided")
_OF_PAIR = frozenset({*OPERATIONAL, "objective", "teacher_version", "vae_version"})
"""What may differ between a run and its control."""
_OF_SEEDS = frozenset({*OPERATIONAL, "seed"})
"""What may differ between the runs of two seeds."""

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
        return self.out / RUNS / name

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
        return self.out / EVALUATIONS / benchmark / model


def continued(work: Reproduction) -> Reproduction:
    """Return the work with the seeds that its folder was begun with too, so that none can be left out by the result.

    Raises TrainingError if the folder was begun with other options. Seeds, benchmarks and models may be added.
    """
    return replace(work, seeds=tuple(planned(work)["seeds"]))


def begin(work: Reproduction) -> None:
    """Write what is asked for into the folder. Raises TrainingError as `planned` does."""
    write_json(work.out / "plan.json", planned(work))


def planned(work: Reproduction) -> dict[str, Any]:
    """Return what is asked for, together with what the folder was begun with.

    Raises TrainingError if anything but seeds, benchmarks and models differs.
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
    seeds = [*dict.fromkeys([*(before["seeds"] if before else []), *work.seeds])]
    parts = {part: before.get(part, {}) | asked[part] for part in asked}
    return {"format": _FORMAT, "seeds": seeds, **parts}


def _begun(file: Path) -> dict[str, Any]:
    try:
        before: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        seeds = all(isinstance(seed, int) for seed in before["seeds"])
        if before["format"] == _FORMAT and seeds and all(isinstance(before[part], dict) for part in _PARTS):
            return before
    except (ValueError, TypeError, KeyError):
        pass
    raise TrainingError(f"{file} is not of a reproduction by this version; use another --out.")


def _place(asked: EvaluationRequest) -> str:
    given = (asked.data, asked.images, asked.classes, asked.templates)
    return ", ".join(str(value) for value in given if value is not None)


def measure(work: Reproduction, evaluator: Evaluator, model: str) -> Iterator[Evaluation]:
    """Evaluate a model on each benchmark on which it, as it is now, has no results yet, and write them.

    Raises TrainingError if a benchmark's data have changed since the base was evaluated; else as `Evaluator.evaluate`.
    """
    reference, baseline = work.measured()[model]
    for asked in work.benchmarks:
        folder = work.evaluation_folder(asked.benchmark, model)
        of_base = work.evaluation_folder(asked.benchmark, BASE)
        # Those of the base may be of any data; the others must be of the same.
        data = None if model == BASE else _measured_with(of_base / "results.json")[1]
        compared = {"results": reference} | ({"baseline": baseline} if baseline else {})
        versions = {
            folder / f"{name}.json": evaluator.load_clip(each, asked.precision).version
            for name, each in compared.items()
        }
        if _is_whole(folder) and all(_is_of(file, version, data) for file, version in versions.items()):
            continue
        found = evaluator.evaluate(replace(asked, model=reference, baseline=baseline))
        if data not in (None, found.results.provenance["data_hash"]):
            raise _other_data(asked, of_base)
        write_evaluation(folder, found)
        yield found


def check_kept(work: Reproduction, base: Clip, benchmarks: Mapping[EvaluationRequest, Benchmark]) -> None:
    """Check that the base and the captions are still those of the results that are there.

    Images, and the captions of retrieval, whose results have items of their own, are compared when a model is measured.

    Raises TrainingError, which names what has changed.
    """
    for asked, benchmark in benchmarks.items():
        folder = work.evaluation_folder(asked.benchmark, BASE)
        if not _is_whole(folder):
            continue
        file = folder / "results.json"
        if _measured_with(file)[0] != base.version:
            raise _other_base(work)
        with _whole(file, of=folder):
            before = {item["id"]: tuple(item["captions"]) for item in read_results(file)["items"]}
        now = {item.id: item.captions for item in benchmark.items}
        changed = any(now.get(each) != captions for each, captions in before.items())
        if changed and before.keys() & now.keys():
            raise _other_data(asked, folder)


def _is_whole(folder: Path) -> bool:
    return (folder / "report.html").exists()  # which is written last


def _is_of(file: Path, version: str, data: str | None) -> bool:
    model, its_data = _measured_with(file)
    return model == version and data in (None, its_data)


def _measured_with(file: Path) -> tuple[str, str]:
    """Return the version of the model and the hash of the data that results are of."""
    results = read_results(file)
    with _whole(file, of=file.parent):
        return results["provenance"]["model_version"], results["provenance"]["data_hash"]


def _other_base(work: Reproduction) -> TrainingError:
    return TrainingError(
        f"{work.config.base} has other weights now than when it was evaluated. Use another --out."
    )


def _other_data(asked: EvaluationRequest, folder: Path) -> TrainingError:
    return TrainingError(
        f"The data of {asked.benchmark} in {asked.data} have changed since the base was evaluated on them. Restore "
        f"them, or remove the folder {folder.parent}, so that every model is measured on the new ones."
    )


def check_alike(work: Reproduction, seed: int) -> None:
    """Check that the runs of a seed have the options that are asked for, and those of all seeds base, data and teacher.

    Raises TrainingError, which names what differs.
    """
    control, run = (described(work.delta(name)) for name in work.runs(seed))
    first = described(work.delta(f"{SDS}-{work.seeds[0]}"))
    of_base = work.evaluation_folder(work.benchmarks[0].benchmark, BASE)
    if control["base_version"] != _measured_with(of_base / "results.json")[0]:
        raise _other_base(work)
    asked = work.runs(seed)[f"{SDS}-{seed}"].model_dump(mode="json")
    if changes := [
        f"{name}: {run.get(name)} -> {value}"
        for name, value in asked.items()
        if name not in OPERATIONAL and run.get(name) != value
    ]:
        raise TrainingError(
            f"The run of seed {seed} had other options: {'; '.join(changes)}. Restore them, or use another --out."
        )
    pairs = (
        (f"The control and the run of seed {seed}", control, _OF_PAIR),
        (f"The runs of the seeds {work.seeds[0]} and {seed}", first, _OF_SEEDS),
    )
    for both, other, ignored in pairs:
        names = (other.keys() | run.keys()) - ignored
        if differs := [name for name in names if other.get(name) != run.get(name)]:
            raise TrainingError(
                f"{both} differ in {', '.join(sorted(differs))}, so they cannot be compared. Remove the runs of seed "
                f"{seed} from {work.out / RUNS}, and their evaluations, and run the command again."
            )


def described(delta: Path) -> dict[str, Any]:
    """Return what a run's result depends on. Raises TrainingError if its file is damaged."""
    with _whole(delta / DESCRIPTION_FILE, of=delta.parent):
        content = json.loads((delta / DESCRIPTION_FILE).read_text(encoding="utf-8"))
        found: dict[str, Any] = content["configuration"] | content["data"]
    return found


@contextmanager
def _whole(file: Path, *, of: Path) -> Iterator[None]:
    """Wrap the reading of a file: raise TrainingError if it is damaged. Once `of` is removed, it is made again."""
    try:
        yield
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise TrainingError(
            f"{file} is missing or damaged. Remove the folder {of}, and run the same command again."
        ) from error


def say_of_teacher(work: Reproduction, seed: int) -> str:
    """Return whether the teacher had a say in a run: go or no go, and by which figures of its log.

    Raises TrainingError if the log is damaged.
    """
    folder = work.run_folder(f"{SDS}-{seed}")
    records = list(read_log(folder / LOG_FILE))
    with _whole(folder / LOG_FILE, of=folder):
        figures = influence_figures(records)
        share = figures["teacher_gradient_share"]
    said = (
        f"on the image features, the gradient of the teacher's loss was {share:.3g} times that of L_CLIP (needed: "
        f"{MIN_GRADIENT_SHARE:g})"
    )
    if "residual_gap" in figures:
        said += (
            f", and the captions of other samples changed the residual by {figures['residual_gap']:+.2%} (needed: "
            f"{MIN_RESIDUAL_GAP:+.0%} and two standard errors)"
        )
    if teacher_had_no_say(records) is None:
        return f"go. In the second half of the run, {said}."
    if share < MIN_GRADIENT_SHARE and figures.get("residual_gap", 1.0) >= MIN_RESIDUAL_GAP:
        remedy = "The gradient was too small. Raise lambda."
    else:
        remedy = (
            "To the teacher, the latents carried nothing of the caption, which no lambda mends. Let the mapper begin "
            "better (mapper_start, mapper_warmup_steps), or choose other timesteps (t_min, t_max)."
        )
    return (
        f"no go. In the second half of the run, {said}. In effect, this is a run without a teacher. {remedy}"
    )


def table(work: Reproduction) -> list[Row]:
    """Return every figure of every model, by benchmark, from the evaluations' files."""
    return [
        row
        for asked in work.benchmarks
        for model, (_, baseline) in work.measured().items()
        for row in _rows(work.evaluation_folder(asked.benchmark, model), model, compared=baseline is not None)
    ]


def over_seeds(work: Reproduction, benchmark: str, figure: str) -> Estimate | None:
    """Return the difference of SDS-CLIP and its control over seeds and items, or None for a mean over tags."""
    differences = []
    for seed in work.seeds:
        folder = work.evaluation_folder(benchmark, f"{SDS}-{seed}")
        control, run = (read_results(folder / name) for name in ("baseline.json", "results.json"))
        outcome = run["metrics"][figure].get("outcome")
        if outcome is None:
            return None
        before, after = (
            {item["id"]: item["correct"][outcome] for item in each["items"] if outcome in item["correct"]}
            for each in (control, run)
        )
        differences.append([float(after[id]) - before[id] for id in sorted(after)])
    return estimate(np.array(differences)[:, None])


def _rows(folder: Path, model: str, *, compared: bool) -> Iterator[Row]:
    comparison = read_results(folder / "comparison.json") if compared else {}
    if compared:
        control = model.replace(SDS, CONTROL)
        yield from _figures(read_results(folder / "baseline.json"), control, {})
    yield from _figures(read_results(folder / "results.json"), model, comparison)


def read_results(file: Path) -> dict[str, Any]:
    """Return the content of an evaluation's file. Raises TrainingError if it is missing or damaged."""
    with _whole(file, of=file.parent):
        found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return found


def _figures(results: dict[str, Any], model: str, comparison: dict[str, Any]) -> Iterator[Row]:
    parts = [("", results["metrics"], comparison)]
    by_tag = comparison.get("by_tag", {})
    parts += [(tag, of, {"outcomes": by_tag.get(tag, {})}) for tag, of in results["by_tag"].items()]
    for tag, metrics, compared in parts:
        for name in sorted(metrics, key=lambda name: name != results["primary"]):
            metric = metrics[name]
            chance, value, low, high = (
                _percent(metric.get(end)) for end in ("chance", "value", "low", "high")
            )
            of = (results["benchmark"], name, tag, metric["n"], chance, model, value, low, high)
            yield dict(zip(FIGURE, of, strict=True)) | _over(name, metric, compared)


def _over(name: str, metric: dict[str, Any], comparison: dict[str, Any]) -> Row:
    """The difference from the control: of an outcome, or of a mean over tags, of which there is no test."""
    macro = comparison.get("macro") or {}
    of = comparison.get("outcomes", {}).get(metric.get("outcome"))
    of = of or (macro if macro.get("metric") == name else {})
    counts = of.get("counts", {})
    ends = [_percent(of.get(end)) for end in ("difference", "low", "high")]
    tests = [counts.get("gained"), counts.get("lost"), of.get("p_better"), of.get("p_two_sided")]
    return dict(zip(OVER, [*ends, *tests], strict=True))


def _percent(share: float | None) -> float | None:
    return None if share is None else 100 * share
