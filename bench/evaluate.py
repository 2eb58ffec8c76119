"""Evaluation benchmark: beside CLIP_benchmark's own code, memory by number of items, and the diffusion score.

A random ViT-B-32 in float32 on sets in the shapes of Winoground and SugarCrepe (640x480 JPEGs), the demo model for
memory and the demo teacher for the diffusion score; one run, contestants in turns, printed as Markdown. Both encode as
many images at once, with as many workers; CLIP_benchmark loads and runs open_clip's own network. Sets and weights are
made once under `.cache/bench`.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.metadata
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from bench import evaluate_report, report, weights
from bench.evaluate_diffusion import time_diffusion
from bench.evaluate_memory import peak_mib
from bench.evaluate_peer import BATCH_SIZE, Peer
from bench.evaluate_race import race_sugarcrepe, race_winoground
from bench.evaluate_sets import demo_set, noise_set, sugarcrepe_set, winoground_set
from bench.measure import note
from bench.train_report import versions
from models.checkpoints import load_clip
from models.machine import usable_cores
from models.teacher.load import load_teacher


@dataclass(frozen=True)
class Plan:
    """How much is measured, and of what."""

    rounds: int
    model: Path | None
    winoground: int
    sugarcrepe: int
    memory: int
    memory_rounds: int
    scored: int
    draws: int
    cache: Path


def main(arguments: list[str] | None = None) -> None:
    """Measure everything and print the report."""
    plan = parse(arguments)
    heading = f"{report.machine()}."
    peaks = measure_memory(plan)
    model = plan.model or weights.make_open_clip(plan.cache / weights.ARCHITECTURE)
    clip = load_clip(f"local-dir:{model}", device="cpu", precision="float32")
    peer = Peer.load(model)
    note("images")
    winoground = winoground_set(plan.cache / f"winoground-{plan.winoground}", plan.winoground)
    sugarcrepe = sugarcrepe_set(plan.cache / f"sugarcrepe-{plan.sugarcrepe}", plan.sugarcrepe)
    races = (
        race_winoground(clip, peer, winoground, plan.rounds),
        race_sugarcrepe(clip, peer, sugarcrepe, plan.rounds),
    )
    teacher = load_teacher("demo", device="cpu", precision="float32", vae=True)
    scored = time_diffusion(
        teacher, demo_set(plan.cache / f"demo-{plan.scored}", plan.scored), plan.draws, plan.rounds
    )

    command = " ".join(["python -m bench.evaluate", *_given(arguments)])
    print(f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d}, `{command}`\n")
    print(heading)
    print(f"{versions(torch.device('cpu'))} clip_benchmark {importlib.metadata.version('clip_benchmark')}.\n")
    print(
        f"{clip.architecture} with random weights, float32; {BATCH_SIZE} images in a forward, {usable_cores()} "
        f"worker(s) that decode; {plan.rounds} rounds in turns: {_READING}\n"
    )
    print(evaluate_report.race_table(races) + "\n")
    print(evaluate_report.memory_table(peaks) + "\n")
    print(evaluate_report.diffusion_table(scored) + "\n")
    print(report.verdicts(evaluate_report.targets(*races, peaks)))


_READING = (
    "medians, with the least and the greatest; ratios are of medians, with the least and the greatest of a round. Time "
    "goes from the files to the figures, which agree; features are kept on disk, in an empty folder each time. Work is "
    "counted in floating-point operations of the forwards. A peak is a whole process's resident memory. The naive way "
    "takes the same images, captions (none among them) and draws one by one, and finds the same scores."
)


def measure_memory(plan: Plan) -> dict[int, list[float]]:
    """Peaks with `plan.memory` items and four times as many, in turns."""
    sizes = (plan.memory, 4 * plan.memory)
    folders = {size: noise_set(plan.cache / f"noise-{size}", size) for size in sizes}
    peaks: dict[int, list[float]] = {size: [] for size in sizes}
    for _ in range(plan.memory_rounds):
        for size, folder in folders.items():
            note(f"memory: {size} items")
            peaks[size].append(peak_mib(folder))
    return peaks


def parse(arguments: Sequence[str] | None) -> Plan:
    """The command line as a plan."""
    parser = argparse.ArgumentParser(prog="python -m bench.evaluate", description=__doc__)
    add = parser.add_argument
    add("--quick", action="store_true", help="tiny sets, few rounds: a smoke test, not a measurement")
    add(
        "--model", type=Path, metavar="DIR", help="open_clip's folder of a model (default: a random ViT-B-32)"
    )
    add("--rounds", type=int, help="repetitions in turns (5, or 1 with --quick)")
    add("--winoground", type=int, help="items of Winoground's shape (64, or 4 with --quick)")
    add("--sugarcrepe", type=int, help="items of SugarCrepe's shape (120, or 12 with --quick)")
    add("--memory", type=int, help="items for memory, and four times as many (500, or 8 with --quick)")
    add("--scored", type=int, help="items that the teacher scores (16, or 1 with --quick)")
    add("--draws", type=int, help="noise levels of the diffusion score (32, or 2 with --quick)")
    add("--cache", type=Path, default=Path(".cache/bench"), help="where sets and weights are kept")
    options = parser.parse_args(arguments)
    quick = options.quick
    return Plan(
        rounds=options.rounds or (1 if quick else 5),
        model=options.model,
        winoground=options.winoground or (4 if quick else 64),
        sugarcrepe=options.sugarcrepe or (12 if quick else 120),
        memory=options.memory or (8 if quick else 500),
        memory_rounds=1 if quick else 3,
        scored=options.scored or (1 if quick else 16),
        draws=options.draws or (2 if quick else 32),
        cache=options.cache.resolve(),
    )


def _given(arguments: Sequence[str] | None) -> Sequence[str]:
    return arguments if arguments is not None else sys.argv[1:]


if __name__ == "__main__":
    main()
