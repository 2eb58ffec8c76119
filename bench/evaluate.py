"""Measures evaluation against CLIP_benchmark's code, memory by number of items, and the diffusion score.

It uses a random ViT-B-32 in float32 on sets shaped like Winoground and SugarCrepe (640x480 JPEGs), the demo
model for memory and the demo teacher for the diffusion score. The contestants take turns in one run, and the
report is Markdown. Both encode the same number of images at once with the same number of workers;
CLIP_benchmark loads and runs open_clip's own network. Sets and weights are created once under `.cache/bench`.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median

import torch

from bench import report, weights
from bench.diffusion import ScoringTimes, time_diffusion
from bench.evaluate_race import BATCH_SIZE, Peer, Race, race_sugarcrepe, race_winoground
from bench.memory import evaluation_peak_mib
from bench.options import cache_option, option, parse
from bench.report import at_least, at_most, note
from bench.rounds import in_turns
from bench.sets import demo_set, noise_set, sugarcrepe_set, winoground_set
from sds_clip.models.checkpoints.load import load_clip
from sds_clip.models.machine import usable_cores
from sds_clip.models.markdown import markdown_table
from sds_clip.models.teacher.load import load_teacher

# Bounds: throughput over CLIP_benchmark's; lead over that expected from the encodes; peak at 4x the items.
FASTER, AHEAD, FLAT = 0.95, 0.95, 1.05


@dataclass(frozen=True)
class Plan:
    """What is measured, and how much."""

    model: Path | None = option(
        None, "Folder of an open_clip model. Without it, a random ViT-B-32 is created.", kind=Path
    )
    rounds: int = option(5, "Number of rounds in which the contestants take turns.", quick=1)
    winoground: int = option(64, "Number of items of Winoground's shape.", quick=4)
    sugarcrepe: int = option(120, "Number of items of SugarCrepe's shape.", quick=12)
    memory: int = option(
        500, "Number of items whose memory is compared with that of four times as many.", quick=8
    )
    memory_rounds: int = option(3, "Number of rounds of the comparison of memory.", quick=1)
    scored: int = option(16, "Number of items that the teacher scores.", quick=1)
    draws: int = option(32, "Number of noise levels of the diffusion score.", quick=2)
    cache: Path = cache_option()


def main(arguments: list[str] | None = None) -> None:
    plan = parse(Plan, "bench.evaluate", __doc__, arguments)
    heading = report.heading("bench.evaluate", arguments)
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
    folder = demo_set(plan.cache / f"demo-{plan.scored}", plan.scored)
    scored = time_diffusion(teacher, folder, plan.draws, plan.rounds)

    versions = report.training_versions(torch.device("cpu"))
    report.show(
        f"{heading}\n{versions} clip_benchmark {importlib.metadata.version('clip_benchmark')}.",
        f"{clip.architecture} with random weights, float32; {BATCH_SIZE} images in a forward, {usable_cores()} "
        f"worker(s) that decode; {plan.rounds} rounds in turns: {_READING}",
        race_table(races),
        memory_table(peaks),
        diffusion_table(scored),
        targets=targets(*races, peaks),
    )


_READING = (
    "medians, with the least and the greatest; ratios are of medians, with the least and the greatest of a round. Time "
    "goes from the files to the figures, which agree; features are kept on disk, in an empty folder each time. Work is "
    "counted in floating-point operations of the forwards. A peak is a whole process's resident memory. The naive way "
    "takes the same images, captions (none among them) and draws one by one, and finds the same scores."
)


def measure_memory(plan: Plan) -> dict[int, list[float]]:
    """The peak memory in MiB, by number of items: `plan.memory` items, and four times as many."""
    sizes = (plan.memory, 4 * plan.memory)
    folders = {size: noise_set(plan.cache / f"noise-{size}", size) for size in sizes}
    runs = {size: partial(evaluation_peak_mib, folder) for size, folder in folders.items()}
    return in_turns("items in memory", plan.memory_rounds, runs)


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
    return markdown_table(header, rows)


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
    return markdown_table(("evaluation, demo model", "peak MiB", f"peak / peak of {least}"), rows)


def diffusion_table(found: ScoringTimes) -> str:
    rows = [
        [
            "batches of 64",
            f"{found.pairs / median(found.batched_s):.2f}",
            report.shown_ratio(found.naive_s, found.batched_s),
        ],
        ["a U-Net call a pair and draw", f"{found.pairs / median(found.naive_s):.2f}", "1"],
    ]
    return markdown_table((f"diffusion score, {found.draws} draws", "pairs/s", "throughput / naive"), rows)


def targets(winoground: Race, sugarcrepe: Race, peaks: dict[int, list[float]]) -> list[report.Target]:
    faster, ahead = (
        report.ratio(race.theirs.seconds, race.ours.seconds) for race in (winoground, sugarcrepe)
    )
    more, less = max(peaks), min(peaks)
    flat = report.ratio(peaks[more], peaks[less])
    return [
        at_least("Winoground: throughput over CLIP_benchmark's", faster, FASTER),
        at_least(
            "SugarCrepe: throughput over CLIP_benchmark's, over work / unique work",
            ahead / sugarcrepe.expected,
            AHEAD,
        ),
        at_most(f"peak memory with {more} items over that with {less}", flat, FLAT),
    ]


if __name__ == "__main__":
    main()
