"""Runs of the demonstration: trained, measured and stored, so that an interrupted series can continue."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import tempfile
from collections.abc import Iterable, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import torch

from demo import fingerprint
from demo.measure import StudentScores, measure
from demo.scores import load_scores, score_chunk, score_files, scoring_seconds
from demo.stopwatch import Stopwatch
from demo.training_set import DemoPairs
from demo.world import Split
from demo.yardstick import real_residuals
from models.atomic import write_atomic
from models.checkpoints import load_clip
from models.machine import usable_cores
from models.teacher.load import load_teacher
from models.teacher.teacher import Teacher
from models.training.config import FinetuneConfig, parse_config
from models.training.parts import Parts
from models.training.processes import find_place
from models.training.run import train
from models.training.watcher import Record, Watcher

# Shared by the search and the demonstration: they use the same scores and some of the same runs.
WORK_DIR = Path(tempfile.gettempdir()) / "sds-clip-demo-runs"
TRAINING_PAIRS = 8192
# A variant's `data` for the same pairs with shuffled captions.
SHUFFLED = Path("demo-shuffled")
COMMON: dict[str, Any] = {
    "base": "demo",
    "data": "demo",
    "batch_size": 128,
    "sds_batch_size": 64,
    "warmup_steps": 20,
    "log_every": 10,
    "save_every": 100,
    "keep_checkpoints": 1,
    "device": "cpu",
    "precision": "float32",  # bfloat16 is 1.4 times as fast where CPUs support it, else nine times slower
    "teacher_precision": "float32",
}


@dataclass(frozen=True)
class Variant:
    """A named way to fine-tune: options on top of `COMMON`."""

    name: str
    options: tuple[tuple[str, Any], ...]

    @classmethod
    def of(cls, name: str, **options: Any) -> Variant:
        return cls(name, tuple(sorted(options.items())))

    def config(self, seed: int, teacher: str) -> FinetuneConfig:
        """The configuration of one run; the control has no teacher."""
        options = {**COMMON, **dict(self.options), "seed": seed}
        return parse_config(options if options["objective"] == "clip" else {**options, "teacher": teacher})


@dataclass(frozen=True)
class Outcome:
    """One run's settings, measurements and log."""

    variant: str
    trainable: str
    seed: int
    split: str
    seconds: float
    """Seconds of one core: for loading and training, over all starts of the run, and for measuring."""
    options: dict[str, Any]
    measured: StudentScores
    log: list[dict[str, float]]
    real: dict[str, float] = field(default_factory=dict)
    """With L_SDS: the teacher's residuals on real latents; see `demo.yardstick`."""


@dataclass(frozen=True)
class Series:
    """What runs have in common: the measured part, the teacher's reference, and where they are stored.

    A run is stored under a fingerprint of everything it depends on except the program: after a change to the
    code, use another folder.
    """

    split: Split
    teacher: str
    work_dir: Path
    pairs: int = TRAINING_PAIRS

    def parts(self, config: FinetuneConfig) -> Parts:
        """A run's inputs, loaded once per process."""
        named = config.teacher
        teacher = _teacher(named, config.teacher_precision, config.guidance) if named else None
        return Parts(_base(), _pairs(self.pairs, shuffled=config.data == SHUFFLED), teacher)

    def plan(self, variant: Variant, seed: int) -> Run:
        config = variant.config(seed, self.teacher)
        parts = self.parts(config)
        name = f"{variant.name}-{config.trainable}-{seed}-{fingerprint.of_run(config, parts)}"
        scores = []
        if config.objective == "score":
            scores = score_files(fingerprint.of_scores(config, parts), self.pairs, self.work_dir)
        return Run(variant.name, config, self.work_dir / name, scores)


@dataclass(frozen=True)
class Run:
    """One run of a series: its folder, and the files of the scores it distils."""

    variant: str
    config: FinetuneConfig
    folder: Path
    scores: list[Path]

    def outcome(self, split: Split) -> Path:
        """The file of its outcome on a part of the world."""
        return self.folder / f"{split}.json"


def one_a_core() -> ProcessPoolExecutor:
    """A pool of single-threaded processes: two small runs in parallel beat one run with two threads."""
    os.environ["OMP_NUM_THREADS"] = "1"
    return ProcessPoolExecutor(max(1, usable_cores()), mp_context=multiprocessing.get_context("spawn"))


def run_all(
    series: Series, wanted: Sequence[tuple[Variant, int]], pool: Executor
) -> tuple[list[Outcome], float]:
    """Do the runs of variants and seeds that are not done yet.

    Returns all outcomes in order, and the seconds of one core that the teacher's scores took.
    """
    runs = [series.plan(variant, seed) for variant, seed in wanted]
    waiting = [run for run in runs if not run.outcome(series.split).exists()]
    _score_all(pool, series, waiting)
    started = [pool.submit(_run, series, run) for run in waiting]
    for number, future in enumerate(started, start=1):
        print(f"{number}/{len(waiting)}: {summary(future.result())}", flush=True)
    scores = dict.fromkeys(file for run in runs for file in run.scores)
    return [read_outcome(run.outcome(series.split)) for run in runs], scoring_seconds(scores)


def base_outcome(split: Split) -> Outcome:
    """The base itself, measured like a run."""
    return Outcome("base", "none", 0, split, 0.0, {}, measure(_base(), split), [])


def summary(outcome: Outcome) -> str:
    """One line of progress."""
    measured = outcome.measured

    def by_kind(right: list[bool]) -> str:
        found: dict[str, list[bool]] = {}
        for kind, one in zip(measured.kinds, right, strict=True):
            found.setdefault(kind, []).append(one)
        return ", ".join(f"{kind} {sum(ones) / len(ones):.1%}" for kind, ones in found.items())

    return (
        f"{outcome.variant} ({outcome.trainable}, seed {outcome.seed}): GroupMatch {by_kind(measured.group_match)}; "
        f"group {by_kind(measured.group)}; retrieval {measured.retrieval:.1%}, zero-shot {measured.zero_shot:.1%}; "
        f"{outcome.seconds:.0f} s"
    )


def read_outcome(file: Path) -> Outcome:
    """Read an outcome stored by `run_all`."""
    content = json.loads(file.read_text(encoding="utf-8"))
    return Outcome(**{**content, "measured": StudentScores(**content["measured"])})


def _score_all(pool: Executor, series: Series, runs: Iterable[Run]) -> None:
    """Score all pairs for the runs that distil scores, before the first of them starts."""
    missing = {
        file: (run.config, number)
        for run in runs
        for number, file in enumerate(run.scores)
        if not file.exists()
    }
    series.work_dir.mkdir(parents=True, exist_ok=True)
    started = [pool.submit(_score, series, *part, file) for file, part in missing.items()]
    for number, future in enumerate(started, start=1):
        future.result()
        print(f"scores: {number}/{len(started)}", flush=True)


def _score(series: Series, config: FinetuneConfig, number: int, file: Path) -> None:
    torch.set_num_threads(1)
    score_chunk(config, series.parts(config), number, file)


class _Timed(Watcher):
    def __init__(self, stopwatch: Stopwatch) -> None:
        self._stopwatch = stopwatch

    def on_record(self, record: Record) -> None:
        self._stopwatch.tick()


def _run(series: Series, run: Run) -> Outcome:
    torch.set_num_threads(1)
    stopwatch = Stopwatch(run.folder / "seconds")
    config, parts, folder = run.config, series.parts(run.config), run.folder
    if not (folder / "delta").exists():
        if run.scores:
            parts = replace(parts, targets=load_scores(run.scores))
        train(config, parts, folder, find_place("cpu"), resume=True, watcher=_Timed(stopwatch))
        stopwatch.tick()
    tuned = load_clip(str(folder / "delta"), device="cpu", precision="float32")
    measured = measure(tuned, series.split)
    log = [json.loads(line) for line in (folder / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    seconds = round(stopwatch.seconds, 1)
    real = real_residuals(config, parts.base, parts.teacher) if config.uses_sds and parts.teacher else {}
    outcome = Outcome(
        run.variant, config.trainable, config.seed, series.split, seconds, config.model_dump(mode="json"),
        measured, log, real,
    )  # fmt: skip
    shutil.rmtree(folder / "checkpoints", ignore_errors=True)
    file = run.outcome(series.split)
    write_atomic(file, json.dumps(asdict(outcome)) + "\n")
    return outcome


@cache
def _base() -> Any:
    return load_clip("demo", device="cpu", precision="float32")


_pairs = cache(DemoPairs)


@cache
def _teacher(reference: str, precision: str, guidance: float | None) -> Teacher:
    return load_teacher(reference, device="cpu", precision=precision, guidance=guidance, vae=True)


def by_variant(outcomes: Iterable[Outcome]) -> dict[tuple[str, str], list[Outcome]]:
    """Group outcomes by trained parameters and variant, in order of first appearance."""
    groups: dict[tuple[str, str], list[Outcome]] = {}
    for outcome in outcomes:
        groups.setdefault((outcome.trainable, outcome.variant), []).append(outcome)
    return groups
