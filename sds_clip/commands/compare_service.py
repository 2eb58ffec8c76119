"""The arms of a comparison as jobs of a service: data sets are uploaded once, and all that is missing is submitted."""

from __future__ import annotations

import hashlib
import json
import shutil
import tarfile
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sds_clip.client.errors import NotFound, Overloaded
from sds_clip.models.atomic import atomic_folder
from sds_clip.models.errors import ConfigError
from sds_clip.models.evaluation.results import Results, results_of
from sds_clip.models.recipes.plan import BASE
from sds_clip.models.recipes.power import describe_power
from sds_clip.models.run_files import LOG_FILE
from sds_clip.models.training.config import TrainingOptions
from sds_clip.table import table

if TYPE_CHECKING:
    from sds_clip.client import Client, Job
    from sds_clip.client.schemas import JobKind
    from sds_clip.models.recipes.arms import Arms

_PAUSE_S = 5.0


@dataclass(frozen=True)
class Service:
    """Trains and measures a plan's models by jobs. A job has the name of what it does, and so is found again."""

    arms: Arms
    client: Client
    say: Callable[[str], None]

    def estimate(self) -> str:
        """Return what the service says of each recipe's jobs, and the power. It waits for the data's checks."""
        plan, rows = self.arms.plan, []
        of = plan.benchmarks[plan.primary]
        counts = self._checked(self._dataset(of.data, plan.primary, of.images))
        bodies = {recipe: self._finetune(recipe, plan.seeds[0]) for recipe in plan.recipes}
        kinds = "training_data", "validation_data"
        for name in {body[kind] for body in bodies.values() for kind in kinds if kind in body}:
            self._checked(name)
        for recipe, fields in bodies.items():
            found = self.client.dry_run("finetune", **fields)["estimate"]
            rows.append(
                [recipe, found["steps"], found["seconds"], found["memory_bytes"], found["jobs_ahead"]]
            )
        header = ["recipe", "steps", "seconds", "memory bytes", "jobs ahead"]
        told = f"For each of {len(plan.seeds)} seeds, by the service's own estimate."
        return "\n\n".join(
            [table(header, rows), told, *describe_power(plan, {plan.primary: counts.get("items", 0)})]
        )

    def run(self) -> None:
        """Submit what is not done, wait, and keep the results. Raises ClientError, JobFailed or ConfigError."""
        plan = self.arms.plan
        for folder in (self.arms.run(*arm) for arm in plan.arms()):
            if (folder / "delta").exists() and not (folder / "version").exists():
                raise click.UsageError(
                    f"{folder} was trained here, and no service has it. Go on without --url, or use another --out."
                )
        bodies = {arm: self._finetune(*arm) for arm in plan.arms()}  # refuses what a service cannot do
        self.arms.begin()
        runs = {
            f"{recipe}-{seed}": self._submit("finetune", f"{recipe}-{seed}", body)
            for (recipe, seed), body in bodies.items()
            if not (self.arms.run(recipe, seed) / "delta").exists()
        }
        measured = {name: self._evaluate(name, ref) for name, ref in {BASE: plan.base, **plan.also}.items()}
        for recipe, seed in plan.arms():
            name, folder = f"{recipe}-{seed}", self.arms.run(recipe, seed)
            if name in runs:
                self.say(f"waiting for {name}")
                self._fetch(runs[name].wait(), folder)
            measured[name] = self._evaluate(name, (folder / "version").read_text(encoding="utf-8"))
            self.arms.check_alike(recipe, seed, {})
        for model in self.arms.models:
            for benchmark, job in measured[model].items():
                self.say(f"waiting for {model} on {benchmark}")
                self.arms.keep(benchmark, model, _results(job.wait()))

    def _finetune(self, recipe: str, seed: int) -> dict[str, Any]:
        """The body of an arm's request."""
        plan = self.arms.plan
        if plan.leave_out_shared:
            raise click.UsageError(
                "With --url, take pictures out of the data yourself: leave_out_shared needs them here."
            )
        config = plan.config(recipe, seed)
        options = plan.recipe(recipe).options
        # An option of the job itself, such as the objective, is none of the hyperparameters.
        own = {name: value for name, value in options.items() if name in TrainingOptions.model_fields}
        fields: dict[str, Any] = {
            "base": plan.base, "objective": config.objective, "seed": seed, "hyperparameters": own,
            "training_data": self._dataset(plan.data, "pairs", plan.images),
        }  # fmt: skip
        if config.uses_teacher:
            fields["teacher"] = plan.teacher
        if plan.val is not None:
            fields["validation_data"] = self._dataset(plan.val, "pairs", plan.val_images)
        return fields

    def _evaluate(self, model: str, reference: str) -> dict[str, Job]:
        """Submit the evaluations of a model that are not kept yet."""
        jobs = {}
        for benchmark, of in self.arms.plan.benchmarks.items():
            found = self.arms.results(benchmark, model)
            if found is not None:
                continue
            fields = {
                "benchmark": benchmark,
                "data": self._dataset(of.data, benchmark, of.images),
                "model": reference,
            }
            fields |= {name: value for name in ("classes", "templates") if (value := getattr(of, name))}
            jobs[benchmark] = self._submit("evaluate", f"{model}-{benchmark}", fields)
        return jobs

    def _submit(self, kind: JobKind, label: str, fields: Mapping[str, Any]) -> Job:
        """Return the job of such a request. It is submitted if there is none; a full queue is waited for."""
        name = f"{label[:40]}-{_digest(json.dumps(fields, sort_keys=True))}"
        try:
            job = self.client.job(name)
        except NotFound:
            pass
        else:
            return job.retry() if job.status in ("failed", "cancelled") else job
        submit: Callable[..., Job] = self.client.finetune if kind == "finetune" else self.client.evaluate
        while True:
            try:
                return submit(name=name, **fields)
            except Overloaded as error:
                self.say(f"waiting to submit {label}: {error.message}")
                time.sleep(_PAUSE_S)

    def _dataset(self, data: str, format: str, images: Path | None) -> str:
        """Return the name of a data set of the service. A path here is uploaded once, and again if a file changed."""
        path = Path(data)
        if not path.exists():
            try:
                return self.client.dataset(data)["id"]
            except NotFound as error:
                raise ConfigError(
                    f"There is no file or folder {data} here, and no data set of this id or name on the service."
                ) from error
        if images is not None:
            raise ConfigError(
                f"With --url, {data} must be a folder that contains its images, so leave `images` out, or the name of "
                "a data set of the service."
            )
        name = f"compare-{_digest(f'{self.arms.out} {format} {path.resolve()} {_state(path)}')}"
        try:
            self.client.dataset(name)
        except NotFound:
            self.say(f"uploading {data} as {name}")
            self.client.upload_dataset(path, format=format, name=name)
        return name

    def _checked(self, name: str) -> dict[str, int]:
        """Wait for the check of a data set, and return what it counted."""
        while (found := self.client.dataset(name))["status"] == "validating" and not found["problems"]:
            self.say(f"waiting for the check of {name}")
            time.sleep(_PAUSE_S)
        if found["status"] != "ready":
            why = "".join(f": {problem['message']}" for problem in (found["problems"] or [])[:1])
            raise ConfigError(f"The data set {name} cannot be used{why or '.'}")
        return found["counts"] or {}

    def _fetch(self, job: Job, folder: Path) -> None:
        """Keep a job's log, its version and its delta, which is written last."""
        assert job.version is not None
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "version").write_text(job.version, encoding="utf-8")
        records = "".join(f"{json.dumps(record)}\n" for record in job.log())
        (folder / LOG_FILE).write_text(records, encoding="utf-8")
        with tempfile.TemporaryDirectory(dir=folder) as work, atomic_folder(folder / "delta") as delta:
            with tarfile.open(self.client.download(job.version, Path(work) / "version.tar")) as archive:
                archive.extractall(Path(work) / "files", filter="data")
            for file in (Path(work) / "files").rglob("*"):
                if file.is_file():
                    shutil.copy(file, delta / file.name)


def _results(job: Job) -> Results:
    """The results of an evaluation job, with all of its items."""
    # The pictures of the items are the service's.
    items = ({**item, "correct": item["outcomes"], "images": ()} for item in job.items(limit=10**9))
    return results_of({"by_tag": {}, **(job.result or {})}, items)


@cache
def _state(path: Path) -> str:
    """Return a digest of the sizes and times of a path's files, as they are when it is first asked for."""
    files = sorted(file for file in (path, *path.rglob("*")) if file.is_file())
    return _digest(str([(str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in files]))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]
