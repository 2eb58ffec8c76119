"""Jobs: how soon a submitted one trains, what a list of many takes, and what a run spends on being watched.

Start: `sds-clip up`, nothing at work and a warm process waiting; jobs are submitted one after another.
Lists: one server over 100 finished jobs and one over 10,000, asked in turn.
Watching: a training run's heartbeats, events and progress, by its process's own account.
"""

import argparse
import datetime
import shutil
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench import report
from bench.job_lists import FEW, MANY, Lists, measure_lists
from bench.job_runs import Start, Watching, measure_runs
from bench.measure import note


@dataclass(frozen=True)
class Plan:
    """How much is measured."""

    starts: int
    requests: int
    steps: int
    folder: Path


def main(arguments: list[str] | None = None) -> None:
    """Measure and print the report."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    plan = parse(arguments)
    heading = f"{report.machine()}."
    shutil.rmtree(plan.folder, ignore_errors=True)
    note(f"lists of {FEW} and {MANY} jobs")
    lists = measure_lists(plan.folder / "lists", plan.requests)
    note(f"{plan.starts} submissions, and a run of {plan.steps} steps")
    imports_s, starts, watching = measure_runs(plan.folder / "runs", plan.starts, plan.steps)
    command = " ".join(["python -m bench.jobs", *(arguments if arguments is not None else sys.argv[1:])])
    print(f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d}, `{command}`\n")
    print(f"{heading}\n{report.own_versions()}.\n")
    print(start_table(imports_s, starts) + "\n")
    print(list_table(lists) + "\n")
    print(
        f"A run of {watching.ran_s:.1f} s: renewing its lease took {watching.renewed_s:.3f} s, events, metrics "
        f"and progress {watching.told_s:.3f} s.\n"
    )
    print(report.verdicts(targets(starts, lists, watching)))


def start_table(imports_s: float, starts: Sequence[Start]) -> str:
    """When what had happened, after the request was sent."""
    lines = ["| after the submission, s | median | slowest |", "| --- | ---: | ---: |"]
    for name, times in (
        ("accepted", [start.accepted_s for start in starts]),
        ("a worker has it", [start.claimed_s for start in starts]),
        ("model and data are loaded, the trainer starts", [start.trains_s for start in starts]),
    ):
        lines.append(f"| {name} | {report.median(times):.2f} | {max(times):.2f} |")
    return "\n".join(
        [*lines, f"\nImporting what a job needs, which is done before it comes: {imports_s:.2f} s."]
    )


def list_table(lists: Sequence[Lists]) -> str:
    """Latencies by request and number of jobs."""
    lines = [
        f"| request | p50 ms, {FEW} jobs | p50 ms, {MANY} jobs | ratio |",
        "| --- | ---: | ---: | ---: |",
    ]
    lines += [
        f"| {each.name} | {each.few_ms:.2f} | {each.many_ms:.2f} | {each.ratio:.2f} |" for each in lists
    ]
    return "\n".join(lines)


def targets(starts: Sequence[Start], lists: Sequence[Lists], watching: Watching) -> list[report.Target]:
    """What was promised."""
    return [
        report.Target(
            "slowest submission to trainer started, s",
            max(start.trains_s for start in starts),
            3,
            at_least=False,
        ),
        report.Target(
            f"GET /jobs with {MANY} finished jobs over {FEW}",
            max(each.ratio for each in lists),
            1.5,
            at_least=False,
        ),
        report.Target("heartbeats and events, % of a run", 100 * watching.share, 1, at_least=False),
    ]


def parse(arguments: list[str] | None) -> Plan:
    """The command line as a plan."""
    parser = argparse.ArgumentParser(prog="python -m bench.jobs", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a smoke test, not a measurement")
    parser.add_argument("--starts", type=int, help="jobs to submit (10, or 2 with --quick)")
    parser.add_argument(
        "--requests", type=int, help="lists to ask for, of each kind (300, or 20 with --quick)"
    )
    parser.add_argument("--steps", type=int, help="of the run that is watched (400, or 20 with --quick)")
    parser.add_argument("--cache", type=Path, default=Path(".cache/bench"))
    options = parser.parse_args(arguments)
    quick = options.quick
    return Plan(
        starts=options.starts or (2 if quick else 10),
        requests=options.requests or (20 if quick else 300),
        steps=options.steps or (20 if quick else 400),
        folder=options.cache.resolve() / "jobs",
    )


if __name__ == "__main__":
    main()
