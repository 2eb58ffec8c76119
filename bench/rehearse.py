"""Rehearses runs at real sizes with random weights: memory and time beside the estimate, silences, and stops.

For each teacher and recipe, a student takes two steps of `sds-clip finetune`. Then the same run is stopped by
SIGTERM at several times, and continued. At last the teacher scores some items by `sds-clip evaluate`. The weights take
up to 5 GB on disk for each teacher.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from threading import Timer
from typing import Any

import torch

from bench import child, weights
from bench.options import cache_option, option, parse
from bench.rehearsal_estimate import estimate
from bench.rehearsal_weights import TEACHERS, make_teacher
from bench.report import heading, note
from bench.sets import demo_set, make_pairs
from sds_clip.models.markdown import markdown_table
from sds_clip.models.recipes.recipe import names, recipe_of
from sds_clip.models.training.config import FinetuneConfig, needs_teacher, parse_config

OBJECTIVES = ("clip", "sds-clip", "condition", "noise-contrast", "score")
RECIPES = tuple(dict.fromkeys((*OBJECTIVES, *names())))
PAIRS = 16


@dataclass(frozen=True)
class Plan:
    """What is rehearsed."""

    teachers: Sequence[str] = option(
        ("sd15", "sd21", "pixart"),
        "Shapes of the teachers.",
        quick=("tiny",),
        choices=TEACHERS,
        kind=str,
        nargs="+",
    )
    student: str = option("ViT-B-32", "Name of an open_clip model.")
    recipes: Sequence[str] = option(
        OBJECTIVES, "Recipes that ship, or objectives.", choices=RECIPES, kind=str, nargs="+"
    )
    stops: Sequence[float] = option(
        (0.2, 0.5, 0.8), "When a run is stopped, as shares of its time.", quick=(0.5,), kind=float, nargs="*"
    )
    items: int = option(2, "Number of items that each teacher scores.")
    batch_size: int = option(8, "Number of images and captions of a step.")
    sds_batch_size: int = option(4, "Number of samples of a batch that the teacher sees.")
    precision: str = option("float32", "Format of student and teacher.")
    device: str = option("cpu", "Device: cuda, cuda:N or cpu.")
    cache: Path = cache_option()


@dataclass(frozen=True)
class Run:
    """One process from its start to its end."""

    code: int
    lines: tuple[tuple[float, str], ...]
    """What it said, and when."""
    took_s: float
    peak_bytes: int
    stopped_after_s: float | None = None
    """Seconds from the signal to the end; None without a signal."""

    @property
    def silent_s(self) -> float:
        times = [0.0, *(at for at, _ in self.lines), self.took_s]
        return max(later - earlier for earlier, later in pairwise(times))

    def said_before(self, at_s: float) -> str:
        return next((text for when, text in reversed(self.lines) if when <= at_s), "(nothing yet)")


def run(*arguments: str, stop_after_s: float | None = None) -> Run:
    """Run `sds-clip` with these arguments; SIGTERM comes after a time, if one is given."""
    began = time.monotonic()
    process = subprocess.Popen(
        (sys.executable, "-m", "sds_clip", *arguments),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1", "HF_HUB_OFFLINE": "1"},
    )
    timer = None if stop_after_s is None else Timer(stop_after_s, process.send_signal, (signal.SIGTERM,))
    if timer is not None:
        timer.start()
    assert process.stderr is not None
    with process.stderr as told:
        lines = tuple((time.monotonic() - began, line.rstrip()) for line in told)
    peak_bytes = _peak_bytes(process)
    took_s = time.monotonic() - began
    if timer is not None:
        timer.cancel()
    waited_s = None if stop_after_s is None or took_s < stop_after_s else took_s - stop_after_s
    return Run(process.returncode, lines, took_s, peak_bytes, waited_s)


def _peak_bytes(process: subprocess.Popen[Any]) -> int:
    """Wait for the end of a process, and return the most memory that it had."""
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    return 1024 * used.ru_maxrss


def rehearse(plan: Plan, teacher: str) -> tuple[list[list[object]], list[list[object]]]:
    """Return the rows of the runs and those of the stops."""
    # In processes of their own: what the system says of a run's memory is at least that of this one.
    folder = child.call(make_teacher, teacher, plan.cache / f"random-{teacher}")
    base = child.call(weights.make_open_clip, plan.cache / plan.student, plan.student)
    make_pairs(plan.cache / "pairs", PAIRS)
    runs: list[list[object]] = []
    stops: list[list[object]] = []
    for recipe in plan.recipes:
        note(f"{teacher}, {recipe}")
        values = _values(plan, folder, base, recipe)
        options = [
            part for name, value in values.items() for part in (f"--{name.replace('_', '-')}", str(value))
        ]
        out = plan.cache / "rehearsal"
        shutil.rmtree(out, ignore_errors=True)
        whole = run("finetune", *options, "--out", str(out))
        if whole.code != 0:
            raise RuntimeError("\n".join(text for _, text in whole.lines[-5:]))
        memory, step_s = child.call(estimate, parse_config(values))
        took = [at for at, text in whole.lines if text.startswith("step ")]
        step = took[1] - took[0]
        runs.append(
            [
                teacher, recipe, f"{whole.peak_bytes / 2**20:.0f}", f"{memory / 2**20:.0f}",
                f"{memory / whole.peak_bytes:.2f}", f"{step:.1f}", f"{step_s:.1f}", f"{step_s / step:.2f}",
                f"{whole.took_s:.0f}", f"{whole.silent_s:.1f}",
            ]
        )  # fmt: skip
        for share in plan.stops:
            shutil.rmtree(out, ignore_errors=True)
            stopped = run("finetune", *options, "--out", str(out), stop_after_s=share * whole.took_s)
            again = run("finetune", *options, "--out", str(out), "--resume")
            waited = stopped.stopped_after_s
            stops.append(
                [
                    teacher, recipe, f"{share * whole.took_s:.0f}",
                    stopped.said_before(share * whole.took_s), "" if waited is None else f"{waited:.1f}",
                    stopped.code, "yes" if again.code == 0 and (out / "delta").exists() else "NO",
                ]
            )  # fmt: skip
    return runs, stops


def _values(plan: Plan, teacher: Path, base: Path, recipe: str) -> dict[str, Any]:
    """The options of a run."""
    method = recipe_of(recipe)[0].options if recipe in names() else {"objective": recipe}
    values = {
        "data": plan.cache / f"pairs/captions-{PAIRS}.json", "images": plan.cache / "pairs/images",
        "base": f"local-dir:{base}", "steps": 2, "batch_size": plan.batch_size,
        "sds_batch_size": plan.sds_batch_size, "precision": plan.precision, "device": plan.device,
        "log_every": 1, "ridge_images": PAIRS, "caption_cache": plan.cache / "captions", **method,
    }  # fmt: skip
    options = FinetuneConfig.model_construct(**method)
    if needs_teacher(options.objective, options):
        values |= {"teacher": f"local-dir:{teacher}", "teacher_precision": plan.precision}
    if options.objective == "score":
        values |= {"score_draws": 2}
    return values


def scoring(plan: Plan, teacher: str) -> list[object]:
    """Score the items by the diffusion score."""
    items = demo_set(plan.cache / f"{plan.items}-items", plan.items)
    out = plan.cache / "rehearsal-scores"
    shutil.rmtree(out, ignore_errors=True)
    found = run(
        "evaluate", "winoground", "--scorer", "diffusion", "--teacher", f"local-dir:{plan.cache / f'random-{teacher}'}",
        "--data", str(items), "--draws", "4", "--device", plan.device, "--precision", plan.precision,
        "--score-error", "epsilon", "--out", str(out),
    )  # fmt: skip
    return [
        teacher,
        found.code,
        f"{found.peak_bytes / 2**20:.0f}",
        f"{found.took_s:.0f}",
        f"{found.silent_s:.1f}",
    ]


def main(arguments: list[str] | None = None) -> None:
    plan = parse(Plan, "bench.rehearse", __doc__, arguments)
    print(heading("bench.rehearse", arguments) + "\n", flush=True)
    torch.set_num_threads(os.cpu_count() or 1)
    runs, stops, scores = [], [], []
    for teacher in plan.teachers:
        found = rehearse(plan, teacher)
        runs += found[0]
        stops += found[1]
        if plan.items:
            scores.append(scoring(plan, teacher))
    of_runs = (
        "teacher", "recipe", "peak MiB", "estimate", "ratio", "step s", "estimate", "ratio", "run s",
        "longest silence s",
    )  # fmt: skip
    of_stops = (
        "teacher",
        "recipe",
        "stopped at s",
        "what it had said",
        "ended after s",
        "code",
        "resumed",
    )
    of_scores = ("teacher", "code", "peak MiB", "took s", "longest silence s")
    tables = (of_runs, runs, (0, 1)), (of_stops, stops, (0, 1, 3, 6)), (of_scores, scores, (0,))
    print("\n\n".join(markdown_table(header, rows, text=text) for header, rows, text in tables if rows))


if __name__ == "__main__":
    main()
