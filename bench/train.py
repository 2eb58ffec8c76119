"""Training benchmark: steps beside their bare parts, `sds` beside `full`, waits, and the pruned diffusion score.

A random student and a random teacher in Stable Diffusion's shape, JPEGs and captions from a seed, the demo teacher for
the choice among captions; one run, printed as Markdown. The defaults fit a CPU; on a GPU, Stable Diffusion 1.5's own
shapes are `--unet sd15 --device cuda --batch-size 64 --sds-batch-size 8`. Images are made once under `.cache/bench`.
"""

from __future__ import annotations

import argparse
import datetime
import sys
from dataclasses import dataclass
from pathlib import Path

from bench import report, train_report
from bench.caption_choice import DEFAULT_Z, ChoicePlan, compare_choices
from bench.measure import note
from bench.step_memory import measure_memory
from bench.step_time import VARIANTS, measure_waits, time_steps
from bench.train_parts import UNETS, Shapes, build, describe, make_pairs
from models.teacher.load import load_teacher


@dataclass(frozen=True)
class Plan:
    """How much is measured, and of what."""

    shapes: Shapes
    rounds: int
    wait_steps: int
    teacher: str
    choice: ChoicePlan
    cache: Path


def main(arguments: list[str] | None = None) -> None:
    """Measure everything and print the report."""
    plan = parse(arguments)
    heading = f"{report.machine()}."
    shapes, choice = plan.shapes, plan.choice
    judge = load_teacher(plan.teacher, device=shapes.device, precision=shapes.precision, vae=True)
    note("images")
    pairs = make_pairs(plan.cache, (max(plan.rounds, plan.wait_steps) + 1) * shapes.batch_size)
    memory = {}
    for variant in VARIANTS:  # before this process takes memory of its own
        note(f"memory: {variant}")
        memory[variant] = measure_memory(shapes, variant, plan.cache)
    model = build(shapes)
    seconds = time_steps(model, pairs, plan.rounds)
    waits = measure_waits(model, pairs, plan.wait_steps)
    exhaustive, pruned = compare_choices(judge, choice)

    command = " ".join(["python -m bench.train", *(arguments if arguments is not None else sys.argv[1:])])
    print(f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d}, `{command}`\n")
    print(heading)
    print(train_report.versions(shapes.place) + "\n")
    print(f"{describe(model)} {plan.rounds} interleaved rounds: {_READING}\n")
    print(train_report.step_table(seconds, memory, shapes.batch_size) + "\n")
    print(train_report.waits_table(waits) + "\n")
    print(train_report.choice_note(plan.teacher, choice) + "\n")
    print(train_report.choice_table(exhaustive, pruned) + "\n")
    print(report.verdicts(train_report.targets(seconds, waits, exhaustive, pruned, DEFAULT_Z)))


_READING = (
    "medians, with the least and the greatest; ratios are of medians, with the least and the greatest of a round. A "
    "step is `Trainer.step` on a loaded batch, its captions embedded anew. Its peak is what its first step takes above "
    "what was held before, in a process of its own."
)


def parse(arguments: list[str] | None) -> Plan:
    """The command line as a plan."""
    parser = argparse.ArgumentParser(prog="python -m bench.train", description=__doc__)
    add = parser.add_argument
    add("--quick", action="store_true", help="tiny shapes, few rounds: a smoke test, not a measurement")
    add("--student", help="an open_clip ViT, or tiny (ViT-B-32, or tiny with --quick)")
    add("--unet", choices=UNETS, help="the U-Net's shape (small, or tiny with --quick)")
    add("--device", default="auto", help="auto, cpu or cuda")
    add("--precision", default="auto", help="auto, float32 or bfloat16, of student and teacher")
    add("--batch-size", type=int, help="images and captions of a step (16, or 4 with --quick)")
    add("--sds-batch-size", type=int, help="of which the teacher sees so many (half)")
    add("--rounds", type=int, help="interleaved repetitions (7, or 2 with --quick)")
    add("--wait-steps", type=int, help="steps whose waiting is measured (12, or 2 with --quick)")
    add("--teacher", default="demo", help="the teacher that chooses captions, with its VAE")
    add("--scenes", type=int, help="scenes whose captions are chosen (400, or 4 with --quick)")
    add("--draws", type=int, help="noise levels that captions are compared on (32, or 16 with --quick)")
    add("--round-size", type=int, default=8, help="draws between prunings")
    add("--error-of", choices=("epsilon", "velocity"), default="velocity", help="whose error is the score")
    add("--cache", type=Path, default=Path(".cache/bench"), help="where the images are kept")
    options = parser.parse_args(arguments)
    quick = options.quick
    batch_size = options.batch_size or (4 if quick else 16)
    return Plan(
        shapes=Shapes(
            student=options.student or ("tiny" if quick else "ViT-B-32"),
            unet=options.unet or ("tiny" if quick else "small"),
            device=options.device,
            precision=options.precision,
            batch_size=batch_size,
            sds_batch_size=options.sds_batch_size or batch_size // 2,
        ),
        rounds=options.rounds or (2 if quick else 7),
        wait_steps=options.wait_steps or (2 if quick else 12),
        teacher=options.teacher,
        choice=ChoicePlan(
            scenes=options.scenes or (4 if quick else 400),
            draws=options.draws or (16 if quick else 32),
            round_size=options.round_size,
            batch_size=64,
            error_of=options.error_of,
        ),
        cache=options.cache.resolve(),
    )


if __name__ == "__main__":
    main()
