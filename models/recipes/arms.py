"""A comparison's folder: the runs of each recipe and seed, what was measured, and whether all of it is of the plan.

    OUT/plan.json                         the plan, and its hash
    OUT/runs/RECIPE-SEED/                 a run (`sds_clip.models.run_files`), or the service's job
    OUT/evaluations/BENCHMARK/MODEL/      a model's results, compared with those of the control of its seed
    OUT/table.tsv, differences.tsv        every figure of every model, and every difference
    OUT/report.md, report.svg             the page and its picture
    OUT/cache, captions                   features and caption embeddings, which may be deleted

Every file appears whole or not at all, and what is there is not made again. So a comparison that was killed continues
where it was.
"""

import json
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from sds_clip.models.checkpoints.references import DESCRIPTION_FILE
from sds_clip.models.errors import EvaluationError, TrainingError
from sds_clip.models.evaluation.benchmark import Benchmark
from sds_clip.models.evaluation.comparison import compare
from sds_clip.models.evaluation.evaluation import Evaluation, write_evaluation
from sds_clip.models.evaluation.results import Results, read_results, write_json
from sds_clip.models.recipes.plan import BASE, Plan
from sds_clip.models.run_files import LOG_FILE
from sds_clip.models.training.log import read_log
from sds_clip.models.training.run import OPERATIONAL
from sds_clip.models.training.watcher import Record

REPORT = "report.html"
FOLDERS = RUNS, EVALUATIONS = "runs", "evaluations"
_FORMAT = 1
_MAY_GROW = ("recipes", "seeds", "benchmarks", "also")


@dataclass(frozen=True)
class Arms:
    """What is done of a plan."""

    plan: Plan
    out: Path

    @cached_property
    def models(self) -> list[str]:
        """Every model that is measured, by name, each after those that it is compared with."""
        control = self.plan.control
        ordered = [control, *(name for name in self.plan.recipes if name != control)]
        return [BASE, *self.plan.also, *(f"{name}-{seed}" for seed in self.plan.seeds for name in ordered)]

    def run(self, recipe: str, seed: int) -> Path:
        return self.out / RUNS / f"{recipe}-{seed}"

    def evaluation(self, benchmark: str, model: str) -> Path:
        return self.out / EVALUATIONS / benchmark / model

    def begin(self, left_out: Collection[str] = ()) -> None:
        """Write the plan into the folder, and which samples are left out of training.

        Raises TrainingError as `check_plan` does, and if others were left out before.
        """
        before = self.check_plan()
        asked = {"format": _FORMAT, "hash": self.plan.hash, "plan": self.plan.model_dump(mode="json")}
        asked["left_out"] = sorted(left_out)
        if before and before.get("left_out", asked["left_out"]) != asked["left_out"]:
            raise TrainingError(
                f"The runs in {self.out} were begun without {len(before['left_out'])} of the pairs, and the benchmarks "
                f"share {len(left_out)} with them now. Use another --out, so that all runs leave out the same."
            )
        write_json(self.out / "plan.json", asked)

    def check_plan(self) -> dict[str, Any]:
        """Return what the folder was begun with, or nothing if it was not.

        Recipes, seeds, benchmarks and models may be added. What was begun cannot be left out of the result, but for
        recipes that have not one run.

        Raises TrainingError if the folder was begun with a plan that had something else, or that had more.
        """
        file = self.out / "plan.json"
        if not file.exists():
            return {}
        with whole(file, of=None):
            content = json.loads(file.read_text(encoding="utf-8"))
            before: dict[str, Any] = {_FORMAT: content["plan"]}[content["format"]]
            before["recipes"] = {
                name: recipe
                for name, recipe in before["recipes"].items()
                if name in self.plan.recipes
                or any((self.run(name, seed) / "delta").exists() for seed in before["seeds"])
            }
            now = self.plan.model_dump(mode="json")
            changes = [name for name in before if before[name] != _part(name, now[name], before[name])]
        if changes:
            raise TrainingError(
                f"{self.out} was begun with another plan: {', '.join(changes)} had something else, or more. Restore "
                "that, or use another --out."
            )
        return dict(content)

    def results(self, benchmark: str, model: str) -> Results | None:
        """Return a model's results, or None if there are none yet, or if they are damaged."""
        folder = self.evaluation(benchmark, model)
        if not (folder / REPORT).exists():  # which is written last
            return None
        try:
            return read_results(folder / "results.json")
        except EvaluationError:
            return None

    def keep(self, benchmark: str, model: str, results: Results) -> None:
        """Write a model's results, compared with those of the control of its seed.

        Raises TrainingError if they are of other data than the base's.
        """
        base = results if model == BASE else self.results(benchmark, BASE)
        if base is not None and base.provenance["data_hash"] != results.provenance["data_hash"]:
            raise self._other_data(benchmark)
        control = self.control_of(model)
        baseline = self.results(benchmark, control) if control else None
        compared = None if baseline is None else compare(baseline, results)
        for other in self.models:
            if self.control_of(other) == model:  # whose report compares it with what is replaced now
                (self.evaluation(benchmark, other) / REPORT).unlink(missing_ok=True)
        write_evaluation(
            self.evaluation(benchmark, model), Evaluation(results, baseline=baseline, comparison=compared)
        )

    def control_of(self, model: str) -> str | None:
        """Return the control of a run's seed, unless the model is one or is no run."""
        arms = {f"{recipe}-{seed}": f"{self.plan.control}-{seed}" for recipe, seed in self.plan.arms()}
        control = arms.get(model)
        return None if control == model else control

    def check_kept(self, benchmarks: Iterable[Benchmark]) -> None:
        """Check that the captions are still those of the base's results, before hours of training.

        Images, and the captions of retrieval, whose results have items of their own, are compared when a model is
        measured. Raises TrainingError, which names what has changed.
        """
        for benchmark in benchmarks:
            results = self.results(benchmark.name, BASE)
            before = {} if results is None else {item.id: item.captions for item in results.items}
            now = {item.id: item.captions for item in benchmark.items}
            if before.keys() & now.keys() and any(now.get(each) != before[each] for each in before):
                raise self._other_data(benchmark.name)

    def _other_data(self, benchmark: str) -> TrainingError:
        return TrainingError(
            f"The data of {benchmark} in {self.plan.benchmarks[benchmark].data} have changed since the base was "
            f"evaluated on them. Restore them, or remove the folder {self.out / EVALUATIONS / benchmark}, so that "
            "every model is measured on the new ones."
        )

    def log(self, recipe: str, seed: int) -> list[Record]:
        """Return the records of a finished run's log. Raises TrainingError if it is damaged."""
        folder = self.run(recipe, seed)
        with whole(folder / LOG_FILE, of=folder):
            records = list(read_log(folder / LOG_FILE))
            records[0]["step"]
        return records

    def described(self, recipe: str, seed: int) -> dict[str, Any]:
        """Return what a finished run's result depends on. Raises TrainingError if its file is damaged."""
        folder = self.run(recipe, seed)
        file = folder / "delta" / DESCRIPTION_FILE
        with whole(file, of=folder):
            content = json.loads(file.read_text(encoding="utf-8"))
            found: dict[str, Any] = content["configuration"] | content["data"]
        return found

    def check_data(self, data_hash: str) -> None:
        """Raise TrainingError if a finished run was trained on other pairs."""
        for arm in self.plan.arms():
            if (self.run(*arm) / "delta").exists() and self.described(*arm)["data_hash"] != data_hash:
                raise TrainingError(
                    f"The training data have changed since {self.run(*arm).name} was trained on them. Restore "
                    f"{self.plan.data}, or use another --out."
                )

    def check_alike(self, recipe: str, seed: int, asked: dict[str, Any]) -> None:
        """Check that a run has the options that are asked for, and the base, data and teacher of the others.

        Raises TrainingError, which names what differs.
        """
        run = self.described(recipe, seed)
        changes = [
            f"{name}: {run.get(name)} -> {value}"
            for name, value in asked.items()
            if name not in OPERATIONAL and run.get(name) != value
        ]
        of_base = self.results(next(iter(self.plan.benchmarks)), BASE)
        if of_base is not None and of_base.provenance["model_version"] != run["base_version"]:
            changes.append(f"the weights of {self.plan.base}")
        others = [
            arm for arm in self.plan.arms() if arm != (recipe, seed) and (self.run(*arm) / "delta").exists()
        ]
        for arm in others:
            other = self.described(*arm)
            pairs = {name: (other.get(name), run.get(name)) for name in ("base_version", "data_hash")}
            if run["teacher_version"] and other["teacher_version"]:
                pairs["teacher_version"] = other["teacher_version"], run["teacher_version"]
            changes += [
                f"{name} of {arm[0]}-{arm[1]}: {had} -> {has}"
                for name, (had, has) in pairs.items()
                if had != has
            ]
        if changes:
            raise TrainingError(
                f"The run {recipe}-{seed} cannot be compared with what the plan asks for, and with the others: "
                f"{'; '.join(changes)}. Restore that, or remove {self.run(recipe, seed)}, or use another --out."
            )


def _part(name: str, now: Any, before: Any) -> Any:
    """The part of what is asked for that was there before."""
    if name not in _MAY_GROW:
        return now
    if isinstance(now, dict):
        return {each: now[each] for each in now if each in before}
    return [each for each in now if each in before]


@contextmanager
def whole(file: Path, *, of: Path | None) -> Iterator[None]:
    """Wrap the reading of a file: raise TrainingError if it is damaged. Once `of` is removed, it is made again."""
    try:
        yield
    except (OSError, ValueError, LookupError, TypeError) as error:
        remedy = (
            "use another --out" if of is None else f"remove the folder {of}, and run the same command again"
        )
        raise TrainingError(f"{file} is missing or damaged; {remedy}.") from error
