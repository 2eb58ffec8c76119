"""Runs of the demonstration: trained, measured and stored, so that an interrupted series can continue."""

from __future__ import annotations

import argparse
import gzip
import json
import multiprocessing
import os
import shutil
import tempfile
import zipfile
from collections.abc import Iterable, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from dataclasses import asdict, dataclass, field, fields, replace
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sds_clip.demo import fingerprint
from sds_clip.demo.measure import StudentScores, measure
from sds_clip.demo.probe import POOLED, TEXT, probe_model
from sds_clip.demo.scores import load_scores, score_chunk, score_files, scoring_seconds, smoothed
from sds_clip.demo.stopwatch import Stopwatch
from sds_clip.demo.training_set import DISTILLATION_SEED, DemoPairs
from sds_clip.demo.winoground_sets import ITEMS_PER_KIND
from sds_clip.demo.world import Split
from sds_clip.models.atomic import write_atomic
from sds_clip.models.checkpoints.load import load_clip
from sds_clip.models.clip.model import Clip
from sds_clip.models.machine import usable_cores
from sds_clip.models.teacher.load import load_teacher
from sds_clip.models.teacher.teacher import Teacher
from sds_clip.models.training.config import FinetuneConfig, parse_config
from sds_clip.models.training.parts import Parts
from sds_clip.models.training.processes import find_rank
from sds_clip.models.training.run import train
from sds_clip.models.training.watcher import Record, Watcher

WORK_DIR = Path(tempfile.gettempdir()) / "sds-clip-demo-runs"
RUNS = Path("docs/experiments/runs")
COMMON: dict[str, Any] = {
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
    misled: bool = False
    """Whether the teacher is shown another sample's caption, or another image if it chooses among captions."""
    smoothed: float | None = None
    """Instead of a teacher, the probability of the own caption in the choice."""
    control: str | None = None
    """The name of the variant with the same captions that asks no teacher."""

    @classmethod
    def of(cls, name: str, **options: Any) -> Variant:
        own = {field: options.pop(field) for field in ("misled", "smoothed", "control") if field in options}
        return cls(name, tuple(sorted(options.items())), **own)

    @property
    def teacher_free(self) -> bool:
        return self.smoothed is not None or not self.config(0, "demo").uses_teacher

    @property
    def informed(self) -> bool:
        """Whether it asks the series' teacher, about the right image."""
        return not (self.teacher_free or self.misled or "teacher" in dict(self.options))

    def config(self, seed: int, teacher: str, base: str = "demo") -> FinetuneConfig:
        """The configuration of one run, with the series' teacher unless the variant names another."""
        options = {**COMMON, "teacher": teacher, **dict(self.options), "seed": seed, "base": base}
        config = parse_config(options)
        config = config.model_copy(update={"sds_weight": config.teacher_weight})
        return config if config.uses_teacher else config.model_copy(update={"teacher": None})


@dataclass(frozen=True)
class Outcome:
    """One run's settings, measurements and log."""

    variant: str
    trainable: str
    seed: int
    split: str
    seconds: float
    """Of one core: for loading and training, over all starts of the run."""
    options: dict[str, Any]
    measured: StudentScores
    log: list[dict[str, float]]
    probes: dict[str, list[list[bool]]] = field(default_factory=dict)
    """What linear probes get right from each embedding; see `sds_clip.demo.probe`."""
    scored: dict[str, float] = field(default_factory=dict)
    """Seconds of one core that the teacher's scores took, by file. Runs with the same scores share them."""


@dataclass(frozen=True)
class Series:
    """What runs have in common: the measured part, the teacher's reference, and where they are stored.

    A run is stored under a fingerprint of everything it depends on except the program: after a change to the
    code, use another folder.
    """

    split: Split
    teacher: str
    work_dir: Path
    """The folder of what is trained and scored."""
    outcomes: Path
    """The folder of what was measured, a file for each run; a finished set is an archive of this name."""
    pairs: int = 1024
    pairs_seed: int = DISTILLATION_SEED
    per_kind: int = ITEMS_PER_KIND
    """Winoground-style items of each kind."""
    seed: int | None = None
    """Of all that is measured; without it, the sets have their own."""
    base: str = "demo"

    def parts(self, config: FinetuneConfig) -> Parts:
        """A run's inputs, loaded once per process."""
        named = config.teacher
        teacher = _teacher(named, config.teacher_precision, config.guidance) if named else None
        captions = str(config.data).removeprefix("demo").removeprefix("-") or "exact"
        drawn = _pairs(self.pairs, self.pairs_seed, captions=captions, proposer=config.base)
        return Parts(load_base(config.base), drawn, teacher)

    def file(self, name: str) -> Path:
        """The file of what was measured of a model, named by the items too."""
        seed = "" if self.seed is None else f"-{self.seed}"
        return self.outcomes / f"{name}-{self.split}{seed}-{self.per_kind}.json.gz"

    def plan(self, variant: Variant, seed: int) -> Run:
        config = variant.config(seed, self.teacher, self.base)
        parts = self.parts(config)
        marks = "-misled" * variant.misled + f"-smoothed-{variant.smoothed}" * (variant.smoothed is not None)
        name = f"{variant.name}-{config.trainable}-{seed}-{fingerprint.of_run(config, parts)}{marks}"
        scores = []
        if config.objective == "score" and config.score_by == "teacher" and variant.smoothed is None:
            scores = score_files(fingerprint.of_scores(config, parts) + marks, self.pairs, self.work_dir)
        return Run(variant, config, self.work_dir / name, scores)


@dataclass(frozen=True)
class Run:
    """One run of a series: its folder, and the files of the scores it distils."""

    variant: Variant
    config: FinetuneConfig
    folder: Path
    scores: list[Path]

    def outcome(self, series: Series) -> Path:
        """The file of what was measured for a series."""
        return series.file(self.folder.name)


def add_series_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that every series of runs has."""
    parser.add_argument(
        "--work-dir",
        type=Path,
        default=WORK_DIR,
        help="Folder for what is trained. Equal runs are used again.",
    )
    parser.add_argument("--outcomes", type=Path, default=RUNS, help="Folder for what was measured.")
    parser.add_argument("--teacher", default="demo", help="Reference of the teacher.")


def one_a_core() -> ProcessPoolExecutor:
    """A pool of single-threaded processes: two small runs in parallel beat one run with two threads."""
    os.environ["OMP_NUM_THREADS"] = "1"
    return ProcessPoolExecutor(max(1, usable_cores()), mp_context=multiprocessing.get_context("spawn"))


def run_all(series: Series, wanted: Sequence[tuple[Variant, int]], pool: Executor) -> list[Outcome]:
    """Do the runs of variants and seeds that are not done yet. Returns all outcomes in order."""
    runs = [series.plan(variant, seed) for variant, seed in wanted]
    known = read_outcomes(series.outcomes)
    waiting = [run for run in runs if run.outcome(series).name not in known]
    _score_all(pool, series, waiting)
    started = [pool.submit(_run, series, run) for run in waiting]
    for number, future in enumerate(started, start=1):
        print(f"{number}/{len(waiting)}: {summary(future.result())}", flush=True)
    return done(series, wanted)


def done(series: Series, wanted: Sequence[tuple[Variant, int]]) -> list[Outcome]:
    """The outcomes of those variants and seeds that were run, in order."""
    known = read_outcomes(series.outcomes)
    names = [series.plan(variant, seed).outcome(series).name for variant, seed in wanted]
    return [known[name] for name in names if name in known]


def base_outcome(series: Series) -> Outcome:
    """The base itself, measured like a run."""
    clip = load_base(series.base)
    file = series.file(f"base-{clip.version[:12]}")
    if file.name not in read_outcomes(series.outcomes):
        measured, probes = _measured(clip, series)
        write_outcome(file, Outcome("base", "none", 0, series.split, 0.0, {}, measured, [], probes=probes))
    return read_outcomes(series.outcomes)[file.name]


def _measured(clip: Clip, series: Series) -> tuple[StudentScores, dict[str, list[list[bool]]]]:
    seeded = {} if series.seed is None else {"seed": series.seed + 3}  # `measure` takes three
    probes = probe_model(clip, series.split, sources=(POOLED, TEXT), **seeded)
    return measure(clip, series.split, series.per_kind, seed=series.seed), probes


def summary(outcome: Outcome) -> str:
    """One line of progress, without the figures of held-out items: they are looked at when all are there."""
    name = f"{outcome.variant} ({outcome.trainable}, seed {outcome.seed})"
    seconds = f"{outcome.seconds:.0f} s"
    if outcome.split == Split.HELD_OUT:
        return f"{name}: {seconds}"
    measured = outcome.measured
    match, group = (
        ", ".join(f"{kind} {share:.1%}" for kind, share in measured.by_kind(right).items())
        for right in (measured.group_match, measured.group)
    )
    return (
        f"{name}: GroupMatch {match}; group {group}; "
        f"retrieval {measured.retrieval:.1%}, zero-shot {measured.zero_shot:.1%}; {seconds}"
    )


def write_outcome(file: Path, outcome: Outcome) -> None:
    """Store an outcome as compressed JSON, its margins with four digits, which keeps their signs."""
    margins = [float(f"{margin:.4g}") for margin in outcome.measured.margins]
    rounded = replace(outcome, measured=replace(outcome.measured, margins=margins))
    content = json.dumps(asdict(rounded), separators=(",", ":")).encode()
    write_atomic(file, gzip.compress(content, mtime=0))


def read_outcomes(folder: Path) -> dict[str, Outcome]:
    """What was measured of a set, by the names of the files in its folder and in its archive."""
    files = {file.name: file.read_bytes() for file in folder.glob("*.json.gz")}
    if (archive := folder.with_suffix(".zip")).exists():
        with zipfile.ZipFile(archive) as packed:
            files |= {name: packed.read(name) for name in packed.namelist()}
    return {name: _outcome_of(json.loads(gzip.decompress(data))) for name, data in files.items()}


def _outcome_of(content: dict[str, Any]) -> Outcome:
    return Outcome(**{**content, "measured": StudentScores(**content["measured"])})


def _score_all(pool: Executor, series: Series, runs: Iterable[Run]) -> None:
    """Score all pairs for the runs that distil scores, before the first of them starts."""
    missing = {
        file: (run.config, number, run.variant.misled)
        for run in runs
        for number, file in enumerate(run.scores)
        if not file.exists()
    }
    started = [pool.submit(_score, series, *part, file) for file, part in missing.items()]
    for number, future in enumerate(started, start=1):
        future.result()
        print(f"scores: {number}/{len(started)}", flush=True)


def _score(series: Series, config: FinetuneConfig, number: int, misled: bool, file: Path) -> None:
    torch.set_num_threads(1)
    score_chunk(config, series.parts(config), number, file, misled=misled)


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
        parts = _as_the_variant_has_it(run, parts)
        train(config, parts, folder, find_rank("cpu"), resume=True, watcher=_Timed(stopwatch))
        stopwatch.tick()
    tuned = load_clip(str(folder / "delta"), device="cpu", precision="float32")
    measured, probes = _measured(tuned, series)
    log = [json.loads(line) for line in (folder / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    seconds = round(stopwatch.seconds, 1)
    outcome = Outcome(
        run.variant.name, config.trainable, config.seed, series.split, seconds, config.model_dump(mode="json"),
        measured, log, probes, scoring_seconds(run.scores),
    )  # fmt: skip
    shutil.rmtree(folder / "checkpoints", ignore_errors=True)
    write_outcome(run.outcome(series), outcome)
    return outcome


def _as_the_variant_has_it(run: Run, parts: Parts) -> Parts:
    variant, config = run.variant, run.config
    if variant.smoothed is not None:
        return replace(parts, targets=smoothed(variant.smoothed, config.score_temperature))
    if run.scores:
        return replace(parts, targets=load_scores(run.scores))
    if variant.misled:
        assert parts.teacher is not None
        return replace(parts, teacher=Misled.of(parts.teacher))
    return parts


class Misled(Teacher):
    """A teacher that takes each caption of a batch for that of the sample before."""

    @classmethod
    def of(cls, teacher: Teacher) -> Misled:
        values = {each.name: getattr(teacher, each.name) for each in fields(teacher) if each.init}
        return cls(**values)

    def encode_captions(self, captions: Sequence[str]) -> Tensor:
        """Embed the captions, and move each to the next place."""
        return super().encode_captions(captions).roll(1, dims=0)


@cache
def load_base(reference: str) -> Any:
    return load_clip(reference, device="cpu", precision="float32")


_pairs = cache(DemoPairs)


@cache
def _teacher(reference: str, precision: str, guidance: float | None) -> Teacher:
    return load_teacher(reference, device="cpu", precision=precision, guidance=guidance, vae=True)
