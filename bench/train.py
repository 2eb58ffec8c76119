"""Training benchmark: steps against bare parts, `sds` against `full`, waits, the pruned diffusion score.

Uses a random student, a random teacher in Stable Diffusion's shape, JPEGs and captions from a seed, and the
demo teacher for choosing captions. All in one run, printed as Markdown. The defaults fit a CPU; on a GPU,
Stable Diffusion 1.5's own shapes are `--unet sd15 --device cuda --batch-size 64 --sds-batch-size 8`. Images
are created once under `.cache/bench`.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from bench import report
from bench.diffusion import CAPTIONS, DEFAULT_Z, ChoicePlan, Choices, compare_choices
from bench.memory import Memory, measure_memory
from bench.report import note
from bench.sets import make_pairs
from bench.steps import BARE, FULL, SDS, STEP, VARIANTS, Seconds, Waits, measure_waits, time_steps
from bench.train_parts import UNETS, Shapes, build, describe
from models.teacher.load import load_teacher


@dataclass(frozen=True)
class Plan:
    """What is measured, and how much."""

    shapes: Shapes
    rounds: int
    wait_steps: int
    teacher: str
    choice: ChoicePlan
    cache: Path


def main(arguments: list[str] | None = None) -> None:
    plan = parse(arguments)
    heading = report.machine()
    shapes, choice = plan.shapes, plan.choice
    judge = load_teacher(plan.teacher, device=shapes.device, precision=shapes.precision, vae=True)
    note("images")
    pairs = make_pairs(plan.cache, (max(plan.rounds, plan.wait_steps) + 1) * shapes.batch_size)
    memory = {}
    for variant in VARIANTS:  # before this process takes memory itself
        note(f"memory: {variant}")
        memory[variant] = measure_memory(shapes, variant, plan.cache)
    model = build(shapes)
    seconds = time_steps(model, pairs, plan.rounds)
    waits = measure_waits(model, pairs, plan.wait_steps)
    exhaustive, pruned = compare_choices(judge, choice)

    print(report.command("bench.train", arguments) + "\n")
    print(heading)
    print(report.training_versions(shapes.place) + "\n")
    print(f"{describe(model)} {plan.rounds} interleaved rounds: {_READING}\n")
    print(step_table(seconds, memory, shapes.batch_size) + "\n")
    print(waits_table(waits) + "\n")
    print(choice_note(plan.teacher, choice) + "\n")
    print(choice_table(exhaustive, pruned) + "\n")
    print(report.verdicts(targets(seconds, waits, exhaustive, pruned, DEFAULT_Z)))


_READING = (
    "medians, with the least and the greatest; ratios are of medians, with the least and the greatest of a round. A "
    "step is `Trainer.step` on a loaded batch, its captions embedded anew. Its peak is what its first step takes above "
    "what was held before, in a process of its own."
)


def parse(arguments: list[str] | None) -> Plan:
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
        "gradient", "step s", "examples/s", "bare s", "step / bare", "time / full",
        "step's peak MiB", "peak / full", "MiB before",
    )  # fmt: skip
    return report.markdown(header, rows)


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
    return report.markdown(header, rows)


def waiting(wait: Waits) -> float:
    """The share of time in which student and U-Net are idle."""
    return (wait.data_s + wait.captions_s) / wait.seconds


def choice_table(exhaustive: Choices, pruned: dict[float, Choices]) -> str:
    count = len(exhaustive.decisions)
    ways = [
        ("every caption on every draw", exhaustive),
        *((f"pruned, z = {z:g}", way) for z, way in pruned.items()),
    ]
    rows = [
        [
            name,
            f"{way.unet_calls / count:.1f}",
            f"{way.unet_calls / exhaustive.unet_calls:.3f}",
            f"{1000 * way.seconds / count:.1f}",
            f"{way.seconds / exhaustive.seconds:.3f}",
            f"{way.agreeing(exhaustive)} of {count} ({way.agreeing(exhaustive) / count:.1%})",
            f"{way.accuracy:.1%}",
        ]
        for name, way in ways
    ]
    header = (
        "choice among 5 captions", "U-Net calls an image", "calls / all", "ms an image", "time / all",
        "equal decisions", "true caption chosen",
    )  # fmt: skip
    return report.markdown(header, rows)


def choice_note(teacher: str, plan: ChoicePlan) -> str:
    return (
        f"Teacher {teacher}; {plan.scenes} validation scenes of the demo world, each with its caption, up to two of "
        f"its own with words swapped and other scenes' captions, {CAPTIONS} in all; {plan.draws} draws common to all "
        f"captions, used in rounds of {plan.round_size}; {plan.error_of} errors; at most {plan.batch_size} latents in "
        "one U-Net call. A call is one noised latent; embedding captions and images is not counted."
    )


def targets(
    seconds: Seconds, waits: Sequence[Waits], exhaustive: Choices, pruned: dict[float, Choices], z: float
) -> list[report.Target]:
    count = len(exhaustive.decisions)
    of_bare = [
        report.Target(
            f"a step ({variant}) over the bare forward and backward of its parts",
            report.ratio(seconds[variant, STEP], seconds[variant, BARE]),
            1.15,
            at_least=False,
        )
        for variant in (FULL, SDS)
    ]
    shares = [
        report.Target(f"share of step time spent waiting, {wait.name}", waiting(wait), 0.05, at_least=False)
        for wait in waits
    ]
    equal = pruned[z].agreeing(exhaustive) / count
    return [
        *of_bare,
        *shares,
        report.Target(f"equal decisions with pruning at z = {z:g}, the default", equal, 0.99, at_least=True),
    ]


if __name__ == "__main__":
    main()
