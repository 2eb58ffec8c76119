"""Injects every kind of fault many times, and writes the table in docs/faults.md.

Half of the injections run on SQLite and half on PostgreSQL, both at the same time.
"""

import sys
import tempfile
import threading
import traceback
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from random import Random

import httpx

from bench import report
from bench.faults.checks import Findings
from bench.faults.kinds import KINDS, Kind, Outcome, nothing, try_out
from bench.faults.system import Inputs, System, make_inputs, running_system, work_dir
from bench.options import option, parse
from bench.servers import ended_by_sigterm
from sds_clip.demo.report import write_between
from sds_clip.models.markdown import markdown_table
from tests.postgres import PostgreSQL, running_postgresql

DOCS = Path(__file__).parents[2] / "docs" / "faults.md"
HEADER = (
    "fault", "times", "jobs lost", "duplicated effects", "wrong weights served", "other", "recovery p50, s", "p99, s",
)  # fmt: skip


@dataclass(frozen=True)
class Plan:
    """What is injected."""

    injections: int = option(100, "Lowest number of injections, spread evenly over all kinds.")
    seed: int = option(0, "Seed of everything random.")
    only: str = option("", "Inject only the kinds with this text in their names.")
    docs: Path = option(DOCS, "File that the table is written into.")
    work_dir: Path | None = option(None, "Folder in which systems and their logs are kept.", kind=Path)


def main(arguments: list[str] | None = None) -> None:
    """Inject the faults; exits with 1 if anything was wrong after one."""
    plan = parse(Plan, "bench.faults.table", __doc__, arguments)
    kinds = [kind for kind in KINDS if plan.only in kind.name]
    everywhere = [kind for kind in kinds if not kind.needs_postgresql and kind.inject is not nothing]
    each = -(-plan.injections // max(1, len(everywhere)))
    outcomes: list[Outcome] = []
    ending = threading.Event()
    heading = report.heading("bench.faults.table", arguments)
    try:
        with ended_by_sigterm(), work_dir(plan.work_dir) as folder, running_postgresql() as postgresql:
            inputs = make_inputs(folder)

            def put_in_half(number: int, server: PostgreSQL | None) -> None:
                random = Random(plan.seed + number)
                for outcome in put_in(kinds, (each + number) // 2, inputs, folder, server, random, ending):
                    outcomes.append(outcome)  # one by one, so that an interrupted run reports too

            with ThreadPoolExecutor() as halves:
                try:
                    list(halves.map(put_in_half, (0, 1), (None, postgresql)))
                finally:
                    ending.set()
    finally:
        text = f"{heading}\n\n{table(outcomes)}"
        print(text)
        if not plan.only:
            write_between("make faults", text, plan.docs)
    sys.exit(any(outcome.findings for outcome in outcomes))


def put_in(
    kinds: Sequence[Kind],
    times: int,
    inputs: Inputs,
    folder: Path,
    postgresql: PostgreSQL | None,
    random: Random,
    ending: threading.Event,
) -> Iterator[Outcome]:
    """Inject in random order into one system, replaced by a new one after each that was harmed."""
    waiting = [kind for kind in kinds if postgresql or not kind.needs_postgresql] * times
    random.shuffle(waiting)
    while waiting and not ending.is_set():
        with running_system(Path(tempfile.mkdtemp(dir=folder)), inputs, postgresql) as system:
            while waiting and not ending.is_set():
                outcome = tried(waiting.pop(), system, random.getrandbits(32))
                print(line(outcome, "PostgreSQL" if postgresql else "SQLite"), flush=True)
                yield outcome
                if outcome.findings:
                    break


def tried(kind: Kind, system: System, seed: int) -> Outcome:
    """A fault's outcome, even if it ended in an error."""
    try:
        return try_out(kind, system, seed)
    except (AssertionError, TimeoutError, StopIteration, httpx.HTTPError) as error:
        traceback.print_exc()
        return Outcome(kind, seed, float("inf"), Findings(broken=[f"{type(error).__name__}: {error}"]))


def line(outcome: Outcome, database: str) -> str:
    """One outcome, printed as progress."""
    told = "; ".join(text for found in outcome.findings.by_name().values() for text in found) or "well"
    return f"{outcome.kind.name} ({database}, seed {outcome.seed}): {outcome.recovery_s:.1f} s, {told}"


def table(outcomes: Sequence[Outcome]) -> str:
    """One row per kind, and one for all together."""
    by_kind = [[outcome for outcome in outcomes if outcome.kind is kind] for kind in KINDS]
    rows = [row(found[0].kind.name, found) for found in by_kind if found]
    faults = [outcome for outcome in outcomes if outcome.kind.inject is not nothing]
    if faults:
        rows.append(row(f"**all {len({fault.kind.name for fault in faults})} kinds**", faults))
    return markdown_table(HEADER, rows)


def row(name: str, outcomes: Sequence[Outcome]) -> list[object]:
    findings = [outcome.findings for outcome in outcomes]
    counts = [
        sum(len(named) for named in column)
        for column in zip(*(each.by_name().values() for each in findings), strict=True)
    ]
    times = [outcome.recovery_s for outcome in outcomes]
    recovery = [f"{report.percentile(times, percent):.1f}" for percent in (50, 99)]
    return [name, len(outcomes), *counts, *recovery]


if __name__ == "__main__":
    main()
