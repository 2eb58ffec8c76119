"""Measures training steps of every objective against their bare parts, and waits.

It uses a random student, a random teacher in Stable Diffusion's shape, and JPEGs and captions from a seed. The
report is Markdown. The defaults fit a CPU; on a GPU, Stable Diffusion 1.5's own shapes are `--unet sd15 --device cuda
--batch-size 64 --sds-batch-size 8`. Images are created once under `.cache/bench`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from bench import report
from bench.memory import Memory, measure_memory
from bench.options import cache_option, option, parse
from bench.report import at_most, note
from bench.sets import make_pairs
from bench.steps import BARE, STEP, Seconds, Waits, measure_waits, time_steps
from bench.train_parts import FULL, MEASURED, UNETS, VARIANTS, Shapes, build, describe
from sds_clip.models.markdown import markdown_table


@dataclass(frozen=True)
class Plan:
    """What is measured, and how much."""

    student: str = option("ViT-B-32", "Name of an open_clip ViT, or tiny.", quick="tiny")
    unet: str = option("small", "Shape of the U-Net.", quick="tiny", choices=UNETS)
    device: str = option("auto", "Device of the steps: auto, cpu or cuda.")
    precision: str = option("auto", "Precision of student and teacher: auto, float32 or bfloat16.")
    batch_size: int = option(16, "Number of images and captions of a step.", quick=8)
    sds_batch_size: int | None = option(
        None,
        "Number of samples of a batch that the teacher sees. Without this option it sees half of them.",
        kind=int,
    )
    score_draws: int = option(2, "Number of noise levels on which a step of score compares captions.")
    rounds: int = option(7, "Number of rounds in which the variants take turns.", quick=2)
    wait_steps: int = option(12, "Number of steps whose waiting is measured.", quick=2)
    cache: Path = cache_option()

    @property
    def shapes(self) -> Shapes:
        sds_batch_size = self.sds_batch_size or self.batch_size // 2
        return Shapes(
            self.student,
            self.unet,
            self.device,
            self.precision,
            self.batch_size,
            sds_batch_size,
            self.score_draws,
        )


def main(arguments: list[str] | None = None) -> None:
    plan = parse(Plan, "bench.train", __doc__, arguments)
    heading = report.heading("bench.train", arguments)
    shapes = plan.shapes
    note("images")
    pairs = make_pairs(plan.cache, (max(plan.rounds, plan.wait_steps) + 1) * shapes.batch_size)
    memory = {}
    for variant in VARIANTS:  # before this process takes memory itself
        note(f"memory: {variant}")
        memory[variant] = measure_memory(shapes, variant, plan.cache)
    model = build(shapes)
    seconds = time_steps(model, pairs, plan.rounds)
    waits = measure_waits(model, pairs, plan.wait_steps)
    report.show(
        f"{heading}\n{report.training_versions(shapes.place)}",
        f"{describe(model)} {plan.rounds} interleaved rounds: {_READING}",
        step_table(seconds, memory, shapes.batch_size),
        waits_table(waits),
        targets=targets(seconds, waits),
    )


_READING = (
    "medians, with the least and the greatest; ratios are of medians, with the least and the greatest of a round. A "
    "step is `Trainer.step` on a loaded batch, its captions embedded anew. Latents are known (drawn from a seed), and "
    "so are text-map's embeddings; score compares captions that it has not compared before. A step's peak is what the "
    "first step takes above what was held before, in a process of its own."
)


def step_table(seconds: Seconds, memory: dict[str, Memory], batch_size: int) -> str:
    rows = []
    for variant in VARIANTS:
        step, bare = seconds[variant, STEP], seconds.get((variant, BARE))
        rows.append(
            [
                variant,
                report.spread(step, 3),
                f"{batch_size / median(step):.2f}",
                report.spread(bare, 3) if bare else "",
                report.shown_ratio(step, bare) if bare else "",
                report.shown_ratio(step, seconds[FULL, STEP]),
                f"{memory[variant].step_mib:.0f}",
                f"{memory[variant].step_mib / memory[FULL].step_mib:.2f}",
                f"{memory[variant].before_mib:.0f}",
            ]
        )
    header = (
        "objective", "step s", "examples/s", "bare s", "step / bare", "time / full",
        "step's peak MiB", "peak / full", "MiB before",
    )  # fmt: skip
    return markdown_table(header, rows)


def waits_table(waits: Sequence[Waits]) -> str:
    rows = [
        [
            wait.name,
            wait.steps,
            f"{wait.seconds / wait.steps:.3f}",
            f"{wait.examples / wait.seconds:.2f}",
            f"{wait.data_s / wait.seconds:.2%}",
            f"{wait.captions_s / wait.seconds:.2%}",
            f"{waiting(wait):.2%}",
        ]
        for wait in waits
    ]
    header = ("training from JPEGs on disk", "steps", "step s", "examples/s", "data", "captions", "both")
    return markdown_table(header, rows)


def waiting(wait: Waits) -> float:
    """The share of time in which student and U-Net are idle."""
    return (wait.data_s + wait.captions_s) / wait.seconds


def targets(seconds: Seconds, waits: Sequence[Waits]) -> list[report.Target]:
    name = "a step ({}) over the bare forward and backward of its parts"
    of_bare = {variant: report.ratio(seconds[variant, STEP], seconds[variant, BARE]) for variant in MEASURED}
    return [
        *(at_most(name.format(variant), ratio, 1.10) for variant, ratio in of_bare.items()),
        *(at_most(f"share of step time spent waiting, {wait.name}", waiting(wait), 0.05) for wait in waits),
    ]


if __name__ == "__main__":
    main()
