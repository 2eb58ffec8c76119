"""Runs of the demonstration: each trained, measured and kept, so that a stopped series goes on where it was."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch

from demo.measure import Measured, measure
from demo.scores import chunks, load_scores, score_chunk
from demo.training_set import DemoPairs
from demo.world import Split
from models.checkpoints import load_clip
from models.cores import usable_cores
from models.teacher.load import load_teacher
from models.teacher.teacher import Teacher
from models.training.config import FinetuneConfig, parse_config
from models.training.parts import Parts, find_place
from models.training.run import train

TRAINING_PAIRS = 8192
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
}


@dataclass(frozen=True)
class Variant:
    """A named way to fine-tune: options over `COMMON`."""

    name: str
    options: tuple[tuple[str, Any], ...]

    @classmethod
    def of(cls, name: str, **options: Any) -> Variant:
        """A variant from keywords."""
        return cls(name, tuple(sorted(options.items())))

    def config(self, seed: int) -> FinetuneConfig:
        """The configuration of one run."""
        return parse_config({**COMMON, **dict(self.options), "seed": seed})


@dataclass(frozen=True)
class Outcome:
    """One run: what it was, what it measured, and its log."""

    variant: str
    trainable: str
    seed: int
    split: str
    seconds: float
    options: dict[str, Any]
    measured: Measured
    log: list[dict[str, float]]


def run_all(runs: Sequence[tuple[Variant, int]], split: Split, teacher: str, work_dir: Path) -> list[Outcome]:
    """Do the runs that are not done yet, one a core at a time, and return all in order."""
    waiting = [run for run in runs if not _file(work_dir, *run, split).exists()]
    # Each run computes in one thread: two small ones side by side beat one in two threads.
    os.environ["OMP_NUM_THREADS"] = "1"
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(max(1, usable_cores()), mp_context=context) as pool:
        _score_all(pool, waiting, teacher, work_dir)
        started = [pool.submit(_run, variant, seed, split, teacher, work_dir) for variant, seed in waiting]
        for number, future in enumerate(started, start=1):
            print(f"{number}/{len(waiting)}: {summary(future.result())}", flush=True)
    return [read_outcome(_file(work_dir, variant, seed, split)) for variant, seed in runs]


def base_outcome(split: Split) -> Outcome:
    """The base as it is, measured like a run."""
    return Outcome("base", "none", 0, split, 0.0, {}, measure(_base(), split), [])


def summary(outcome: Outcome) -> str:
    """One line for a person who waits."""
    shares = {
        kind: sum(g for g, k in zip(outcome.measured.group, outcome.measured.kinds, strict=True) if k == kind)
        / outcome.measured.kinds.count(kind)
        for kind in dict.fromkeys(outcome.measured.kinds)
    }
    scores = ", ".join(f"{kind} {share:.1%}" for kind, share in shares.items())
    return (
        f"{outcome.variant} ({outcome.trainable}, seed {outcome.seed}): group {scores}; retrieval "
        f"{outcome.measured.retrieval:.1%}, zero-shot {outcome.measured.zero_shot:.1%}; {outcome.seconds:.0f} s"
    )


def read_outcome(file: Path) -> Outcome:
    """An outcome as `run_all` keeps it."""
    content = json.loads(file.read_text(encoding="utf-8"))
    return Outcome(**{**content, "measured": Measured(**content["measured"])})


def _score_all(
    pool: ProcessPoolExecutor, runs: Sequence[tuple[Variant, int]], teacher: str, work_dir: Path
) -> None:
    """Score all pairs for the runs that distil scores, before the first of them starts."""
    parts = {
        file: (config, start)
        for config in (variant.config(seed) for variant, seed in runs)
        if config.objective == "score"
        for start, file in chunks(config, TRAINING_PAIRS, work_dir)
        if not file.exists()
    }
    started = [pool.submit(_score, config, start, file, teacher) for file, (config, start) in parts.items()]
    for number, future in enumerate(started, start=1):
        future.result()
        print(f"scores: {number}/{len(started)}", flush=True)


def _score(config: FinetuneConfig, start: int, file: Path, teacher: str) -> None:
    torch.set_num_threads(1)
    score_chunk(config, Parts(_base(), _pairs(), _teacher(teacher)), start, file)


def _run(variant: Variant, seed: int, split: Split, teacher: str, work_dir: Path) -> Outcome:
    torch.set_num_threads(1)
    config = variant.config(seed)
    folder = work_dir / f"{variant.name}-{config.trainable}-{seed}"
    parts = Parts(_base(), _pairs(), None if config.objective == "clip" else _teacher(teacher))
    known = load_scores(config, parts, work_dir) if config.objective == "score" else None
    began = time.monotonic()
    if not (folder / "delta").exists():
        train(config, parts, folder, find_place("cpu"), resume=True, known_scores=known)
    seconds = time.monotonic() - began
    tuned = load_clip(str(folder / "delta"), device="cpu", precision="float32")
    log = [json.loads(line) for line in (folder / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    outcome = Outcome(
        variant.name, config.trainable, seed, split, round(seconds, 1), dict(variant.options),
        measure(tuned, split), log,
    )  # fmt: skip
    shutil.rmtree(folder / "checkpoints", ignore_errors=True)
    file = _file(work_dir, variant, seed, split)
    unfinished = file.with_suffix(".unfinished")
    unfinished.write_text(json.dumps(asdict(outcome)) + "\n", encoding="utf-8")
    os.replace(unfinished, file)
    return outcome


def _file(work_dir: Path, variant: Variant, seed: int, split: Split) -> Path:
    config = variant.config(seed)
    return work_dir / f"{variant.name}-{config.trainable}-{seed}-{split}.json"


@cache
def _base() -> Any:
    return load_clip("demo", device="cpu", precision="float32")


@cache
def _pairs() -> DemoPairs:
    return DemoPairs(TRAINING_PAIRS)


@cache
def _teacher(reference: str) -> Teacher:
    return load_teacher(reference, device="cpu", vae=True)


def by_variant(outcomes: Iterable[Outcome]) -> dict[tuple[str, str], list[Outcome]]:
    """Outcomes of one variant and one set of trained parameters together, in the order of their first."""
    groups: dict[tuple[str, str], list[Outcome]] = {}
    for outcome in outcomes:
        groups.setdefault((outcome.trainable, outcome.variant), []).append(outcome)
    return groups
