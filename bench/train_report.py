"""From measurements of training to the report's tables and targets."""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Sequence

import torch

from bench.caption_choice import CAPTIONS, ChoicePlan, Choices
from bench.report import Target, median
from bench.step_memory import Memory
from bench.step_time import BARE, FULL, SDS, STEP, VARIANTS, Seconds, Waits

LIBRARIES = ("torch", "diffusers", "transformers", "open_clip_torch", "accelerate")


def markdown(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A table whose first column is text and whose others are numbers."""
    rule = ["---", *["---:"] * (len(header) - 1)]
    return "\n".join("| " + " | ".join(map(str, row)) + " |" for row in (header, rule, *rows))


def versions(device: torch.device) -> str:
    """What ran, the threads or the GPU that it ran on included."""
    libraries = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in LIBRARIES)
    place = f"{torch.get_num_threads()} threads"
    if device.type == "cuda":
        gpu = torch.cuda.get_device_properties(device)
        place = f"{gpu.name}, {gpu.total_memory / 2**30:.0f} GiB"
    return f"Python {platform.python_version()}, {libraries}; {place}."


def ratio(over: Sequence[float], under: Sequence[float]) -> float:
    """The ratio of two medians."""
    return median(over) / median(under)


def shown_ratio(over: Sequence[float], under: Sequence[float]) -> str:
    """The ratio of the medians, and the least and the greatest ratio of a round."""
    each = [one / other for one, other in zip(over, under, strict=True)]
    return f"{ratio(over, under):.3f} ({min(each):.3f} to {max(each):.3f})"


def step_table(seconds: Seconds, memory: dict[str, Memory], batch_size: int) -> str:
    """Time and memory of a step by variant."""
    rows = []
    for variant in VARIANTS:
        step, bare = seconds[variant, STEP], seconds.get((variant, BARE))
        rows.append(
            [
                variant,
                _seconds(step),
                f"{batch_size / median(step):.2f}",
                _seconds(bare) if bare else "",
                shown_ratio(step, bare) if bare else "",
                shown_ratio(step, seconds[FULL, STEP]),
                f"{memory[variant].step_mib:.0f}",
                f"{memory[variant].step_mib / memory[FULL].step_mib:.2f}",
                f"{memory[variant].before_mib:.0f}",
            ]
        )
    header = (
        "gradient", "step s", "examples/s", "bare s", "step / bare", "time / full",
        "step's peak MiB", "peak / full", "MiB before",
    )  # fmt: skip
    return markdown(header, rows)


def waits_table(waits: Sequence[Waits]) -> str:
    """What the steps of a run wait for."""
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
    return markdown(header, rows)


def waiting(wait: Waits) -> float:
    """The share of the time in which the student and the U-Net have nothing to do."""
    return (wait.data_s + wait.captions_s) / wait.seconds


def choice_table(exhaustive: Choices, pruned: dict[float, Choices]) -> str:
    """Pruning at each z beside scoring everything."""
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
    return markdown(header, rows)


def choice_note(teacher: str, plan: ChoicePlan) -> str:
    """How the choices were made."""
    return (
        f"Teacher {teacher}; {plan.scenes} validation scenes of the demo world, each with its caption, up to two of "
        f"its own with words swapped and other scenes' captions, {CAPTIONS} in all; {plan.draws} draws common to all "
        f"captions, used in rounds of {plan.round_size}; {plan.error_of} errors; at most {plan.batch_size} latents in "
        "one U-Net call. A call is one noised latent; embedding captions and images is not counted."
    )


def targets(
    seconds: Seconds, waits: Sequence[Waits], exhaustive: Choices, pruned: dict[float, Choices], z: float
) -> list[Target]:
    """What training promises."""
    count = len(exhaustive.decisions)
    of_bare = [
        Target(
            f"a step ({variant}) over the bare forward and backward of its parts",
            ratio(seconds[variant, STEP], seconds[variant, BARE]),
            1.15,
            at_least=False,
        )
        for variant in (FULL, SDS)
    ]
    shares = [
        Target(f"share of step time spent waiting, {wait.name}", waiting(wait), 0.05, at_least=False)
        for wait in waits
    ]
    equal = pruned[z].agreeing(exhaustive) / count
    return [
        *of_bare,
        *shares,
        Target(f"equal decisions with pruning at z = {z:g}, the default", equal, 0.99, at_least=True),
    ]


def _seconds(values: Sequence[float]) -> str:
    return f"{median(values):.3f} ({min(values):.3f} to {max(values):.3f})"
