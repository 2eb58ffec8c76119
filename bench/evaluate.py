"""Evaluation benchmark: against CLIP_benchmark's code, memory by number of items, the diffusion score.

Uses a random ViT-B-32 in float32 on sets shaped like Winoground and SugarCrepe (640x480 JPEGs), the demo
model for memory and the demo teacher for the diffusion score. All in one run, contestants alternating,
printed as Markdown. Both encode the same number of images at once with the same number of workers;
CLIP_benchmark loads and runs open_clip's own network. Sets and weights are created once under `.cache/bench`.
"""

from __future__ import annotations

import argparse
import importlib.metadata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import torch

from bench import report, weights
from bench.diffusion import ScoringTimes, time_diffusion
from bench.evaluate_race import BATCH_SIZE, Peer, Race, race_sugarcrepe, race_winoground
from bench.memory import evaluation_peak_mib
from bench.report import note
from bench.sets import demo_set, noise_set, sugarcrepe_set, winoground_set
from models.checkpoints import load_clip
from models.machine import usable_cores
from models.teacher.load import load_teacher

# Bounds: throughput over CLIP_benchmark's; lead over that expected from the encodes; peak at 4x the items.
FASTER, AHEAD, FLAT = 0.95, 0.95, 1.05


@dataclass(frozen=True)
class Plan:
    """What is measured, and how much."""

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
    plan = parse(arguments)
    heading = report.machine()
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

    print(report.command("bench.evaluate", arguments) + "\n")
    print(heading)
    peer_version = importlib.metadata.version("clip_benchmark")
    print(f"{report.training_versions(torch.device('cpu'))} clip_benchmark {peer_version}.\n")
    print(
        f"{clip.architecture} with random weights, float32; {BATCH_SIZE} images in a forward, {usable_cores()} "
        f"worker(s) that decode; {plan.rounds} rounds in turns: {_READING}\n"
    )
    print(race_table(races) + "\n")
    print(memory_table(peaks) + "\n")
    print(diffusion_table(scored) + "\n")
    print(report.verdicts(targets(*races, peaks)))


_READING = (
    "medians, with the least and the greatest; ratios are of medians, with the least and the greatest of a round. Time "
    "goes from the files to the figures, which agree; features are kept on disk, in an empty folder each time. Work is "
    "counted in floating-point operations of the forwards. A peak is a whole process's resident memory. The naive way "
    "takes the same images, captions (none among them) and draws one by one, and finds the same scores."
)


def measure_memory(plan: Plan) -> dict[int, list[float]]:
    """Peaks with `plan.memory` and four times as many items, alternating."""
    sizes = (plan.memory, 4 * plan.memory)
    folders = {size: noise_set(plan.cache / f"noise-{size}", size) for size in sizes}
    peaks: dict[int, list[float]] = {size: [] for size in sizes}
    for _ in range(plan.memory_rounds):
        for size, folder in folders.items():
            note(f"memory: {size} items")
            peaks[size].append(evaluation_peak_mib(folder))
    return peaks


def parse(arguments: Sequence[str] | None) -> Plan:
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


def race_table(races: Sequence[Race]) -> str:
    rows = [
        [
            race.name,
            race.items,
            f"{race.unique.images} of {race.total.images}",
            f"{race.unique.texts} of {race.total.texts}",
            report.spread(race.ours.seconds, 2),
            report.spread(race.theirs.seconds, 2),
            report.shown_ratio(race.theirs.seconds, race.ours.seconds),
            report.shown_ratio(race.theirs.core_seconds, race.ours.core_seconds),
            f"{race.expected:.3f}",
        ]
        for race in races
    ]
    header = (
        "shape", "items", "unique images", "unique texts", "sds-clip s", "CLIP_benchmark s",
        "throughput / CLIP_benchmark's", "the same by time of cores", "work / unique work",
    )  # fmt: skip
    return report.markdown(header, rows)


def memory_table(peaks: dict[int, list[float]]) -> str:
    least = min(peaks)
    rows = [
        [
            f"{items} items, {2 * items} images",
            report.spread(found, 0),
            report.shown_ratio(found, peaks[least]),
        ]
        for items, found in peaks.items()
    ]
    return report.markdown(("evaluation, demo model", "peak MiB", f"peak / peak of {least}"), rows)


def diffusion_table(found: ScoringTimes) -> str:
    rows = [
        [
            "batches of 64",
            f"{found.pairs / median(found.batched_s):.2f}",
            report.shown_ratio(found.naive_s, found.batched_s),
        ],
        ["a U-Net call a pair and draw", f"{found.pairs / median(found.naive_s):.2f}", "1"],
    ]
    return report.markdown((f"diffusion score, {found.draws} draws", "pairs/s", "throughput / naive"), rows)


def targets(winoground: Race, sugarcrepe: Race, peaks: dict[int, list[float]]) -> list[report.Target]:
    return [
        report.Target(
            "Winoground: throughput over CLIP_benchmark's",
            report.ratio(winoground.theirs.seconds, winoground.ours.seconds),
            FASTER,
            at_least=True,
        ),
        report.Target(
            "SugarCrepe: throughput over CLIP_benchmark's, over work / unique work",
            report.ratio(sugarcrepe.theirs.seconds, sugarcrepe.ours.seconds) / sugarcrepe.expected,
            AHEAD,
            at_least=True,
        ),
        report.Target(
            f"peak memory with {max(peaks)} items over that with {min(peaks)}",
            report.ratio(peaks[max(peaks)], peaks[min(peaks)]),
            FLAT,
            at_least=False,
        ),
    ]


if __name__ == "__main__":
    main()
