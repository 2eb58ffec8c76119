"""Everything that waits for a first GPU, in one command of at most 40 minutes: tests, speed and memory, on one page.

The parts run one after the other, each in processes of its own and with a limit on its time. A part that fails does not
stop the next, and the page is written anew after each. This was written without a GPU: `--device cpu --quick` runs
every part on the CPU, in small.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch

from bench import report
from bench.options import cache_option, option, parse
from bench.report import note
from sds_clip.models.markdown import markdown_table

SHOWN_LINES = 25
TO_STOP_S = 60  # for a part that has reached its limit, before it is killed
STOPPED = (124, 137)  # exit codes of coreutils' timeout
TESTS = ("tests/models", "tests/worker", "tests/app/serving/test_device_memory.py")


@dataclass(frozen=True)
class Plan:
    """Where the parts run, how much they do, and where their page goes."""

    device: str = option("cuda", "Device: cuda, cuda:N, or cpu to try the command out.")
    size: str = option("full", "How much the parts do.", quick="small", choices=("full", "small"))
    out: Path = option(Path("gpu-report.md"), "File for the page.")
    cache: Path = cache_option()


@dataclass(frozen=True)
class Part:
    """A Python module and its arguments. Its stdout goes into the page: Markdown, or text of which the end is shown."""

    name: str
    arguments: Sequence[str]
    limit_s: int
    is_text: bool = False


@dataclass(frozen=True)
class Outcome:
    """How a part ended, and what it has to say."""

    part: Part
    result: str
    seconds: float
    body: str


def parts(plan: Plan) -> list[Part]:
    """All parts. Their limits are 40 minutes together, with the time to stop.

    A small run, which may be on a busy machine, has more.
    """
    common = ["--device", plan.device, "--cache", str(plan.cache)]
    real = ["--unet", "sd15", "--batch-size", "64", "--sds-batch-size", "8", "--rounds", "5"]
    tests, kind = (TESTS, "gpu") if plan.device != "cpu" else (TESTS[-1:], "not gpu")
    minute = 60
    if plan.size == "small":
        common, real, minute = [*common, "--quick"], [], 240
    measured = ["bench.gpu_parts", *common, "--part"]
    pytest = ["pytest", "-q", "-p", "no:cacheprovider", "-m", kind, *tests]
    return [
        Part("Tests", pytest, 9 * minute, is_text=True),
        Part("Serving ViT-B/32", [*measured, "serving"], 11 * minute),
        Part("A training step of each objective", ["bench.train", *common, *real], 9 * minute),
        Part("The diffusion score", [*measured, "scoring"], 3 * minute),
        Part("The memory of a training step", [*measured, "memory"], 3 * minute),
    ]


def run(part: Part, log: Path, **environment: str) -> Outcome:
    """Run a part to its end or to its limit. What it says on stderr goes to the log."""
    note(f"{part.name}: at most {part.limit_s // 60} minutes; tail -f {log}")
    limit = ("timeout", f"--kill-after={TO_STOP_S}", str(part.limit_s))
    command = (*limit, sys.executable, "-m", *part.arguments)
    began = time.monotonic()
    with (
        log.open("w") as errors,
        subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=errors, env=os.environ | environment
        ) as process,
    ):
        try:
            output = process.communicate()[0].decode(errors="replace")
        except BaseException:
            process.terminate()  # `timeout` passes it on
            raise
    code = process.returncode
    result = (
        "done"
        if code == 0
        else "STOPPED at its limit"
        if code in STOPPED
        else f"FAILED with exit code {code}"
    )
    body = output.strip()
    if code != 0 or part.is_text:
        lines = [*body.splitlines(), *([] if part.is_text and body else log.read_text().splitlines())]
        body = "\n".join([f"{result}. The end of its output:", "", "````text", *lines[-SHOWN_LINES:], "````"])
    return Outcome(part, result, time.monotonic() - began, body)


def page(heading: str, planned: Sequence[Part], outcomes: Sequence[Outcome]) -> str:
    rows = [[each.part.name, each.result, f"{each.seconds:.0f}"] for each in outcomes]
    rows += [[part.name, "not run yet", ""] for part in planned[len(outcomes) :]]
    sections = [f"## {each.part.name}\n\n{each.body}" for each in outcomes]
    return (
        "\n\n".join([heading, markdown_table(("part", "result", "s"), rows, text=(0, 1)), *sections]) + "\n"
    )


def describe(device: torch.device) -> str:
    """Every card with its memory, the driver, what torch was built for, and the commit."""
    commit = _said_by("git", "rev-parse", "HEAD") + (
        ", with changes" if _said_by("git", "status", "-s", "-uno") else ""
    )
    versions = f"torch {torch.__version__}, CUDA {torch.version.cuda}. Commit {commit}."
    if device.type != "cuda":
        return f"Without a GPU. {versions}"
    cards = [torch.cuda.get_device_properties(index) for index in range(torch.cuda.device_count())]
    named = [
        f"{card.name} ({card.total_memory / 2**30:.0f} GiB, compute capability {card.major}.{card.minor})"
        for card in cards
    ]
    driver = _said_by("nvidia-smi", "--id=0", "--query-gpu=driver_version", "--format=csv,noheader")
    return f"{', '.join(named)}; driver {driver}, {versions}"


def _said_by(*command: str) -> str:
    with suppress(OSError):
        return subprocess.run(command, capture_output=True, text=True).stdout.strip()
    return "unknown"


def main(arguments: list[str] | None = None) -> None:
    plan = parse(Plan, "bench.gpu", __doc__, arguments)
    device = torch.device(plan.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        sys.exit(f"There is no GPU that torch {torch.__version__} can use; `sds-clip doctor` says more.")
    heading = f"# Report of a GPU\n\n{report.heading('bench.gpu', arguments)}\n\n{describe(device)}"
    environment = {"SDS_CLIP_TEST_GPU": "1"} if device.type == "cuda" else {}
    logs = plan.cache / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    planned, outcomes = parts(plan), list[Outcome]()
    for number, part in enumerate(planned):
        outcomes.append(run(part, logs / f"gpu-{number + 1}.log", **environment))
        plan.out.write_text(page(heading, planned, outcomes), encoding="utf-8")
    print(plan.out)
    if any(each.result != "done" for each in outcomes):
        sys.exit(1)


if __name__ == "__main__":
    main()
