"""Injects every kind of fault many times, and writes the table in docs/faults.md.

Half of the injections run on SQLite and half on PostgreSQL, both at the same time.
"""

import argparse
import datetime
import signal
import sys
import tempfile
import threading
import traceback
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from random import Random

import httpx

from bench import report
from bench.faults.checks import Findings
from bench.faults.kinds import KINDS, Kind, Outcome, nothing, try_out
from bench.faults.system import Inputs, System, make_inputs, running_system
from tests.postgres import PostgreSQL, running_postgresql

DOCS = Path(__file__).parents[2] / "docs" / "faults.md"
BEGIN, END = "<!-- make faults writes from here -->\n", "<!-- to here -->\n"
HEADING = "| fault | times | jobs lost | duplicated effects | wrong weights served | other | recovery p50, s | p99, s |"
ALIGNMENT = "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |"


def main(arguments: list[str] | None = None) -> None:
    """Inject the faults; exits with 1 if anything was wrong after one."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    parser = argparse.ArgumentParser(prog="python -m bench.faults.table", description=__doc__)
    parser.add_argument(
        "--injections", type=int, default=100, help="at least so many, of all kinds alike (default: 100)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of all chance (default: 0)")
    parser.add_argument("--only", default="", metavar="TEXT", help="kinds with this in their names")
    parser.add_argument(
        "--docs", type=Path, default=DOCS, help="where the table goes (default: docs/faults.md)"
    )
    parser.add_argument(
        "--work-dir", type=Path, help="where systems and their logs are kept (default: nowhere)"
    )
    options = parser.parse_args(arguments)
    kinds = [kind for kind in KINDS if options.only in kind.name]
    everywhere = [kind for kind in kinds if not kind.needs_postgresql and kind.inject is not nothing]
    each = -(-options.injections // max(1, len(everywhere)))
    outcomes: list[Outcome] = []
    ending = threading.Event()
    heading = f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d}, seed {options.seed}. {report.machine()}."
    try:
        with work_dir(options.work_dir) as folder, running_postgresql() as postgresql:
            inputs = make_inputs(folder)

            def put_in_half(number: int, server: PostgreSQL | None) -> None:
                random = Random(options.seed + number)
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
        if not options.only:
            write(options.docs, text)
    sys.exit(any(outcome.findings for outcome in outcomes))


@contextmanager
def work_dir(given: Path | None) -> Iterator[Path]:
    """A new folder within `given`, which is kept, or a temporary one."""
    if given is not None:
        given.mkdir(parents=True, exist_ok=True)
        yield Path(tempfile.mkdtemp(dir=given))
        return
    with tempfile.TemporaryDirectory(prefix="faults-") as folder:
        yield Path(folder)


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
    findings = outcome.findings
    told = "; ".join([*findings.lost, *findings.duplicated, *findings.wrong, *findings.broken]) or "well"
    return f"{outcome.kind.name} ({database}, seed {outcome.seed}): {outcome.recovery_s:.1f} s, {told}"


def table(outcomes: Sequence[Outcome]) -> str:
    """One row per kind, and one for all together."""
    lines = [HEADING, ALIGNMENT]
    for kind in KINDS:
        found = [outcome for outcome in outcomes if outcome.kind is kind]
        if found:
            lines.append(row(kind.name, found))
    faults = [outcome for outcome in outcomes if outcome.kind.inject is not nothing]
    if faults:
        lines.append(row(f"**all {len({fault.kind.name for fault in faults})} kinds**", faults))
    return "\n".join(lines) + "\n"


def row(name: str, outcomes: Sequence[Outcome]) -> str:
    findings = [outcome.findings for outcome in outcomes]
    counts = [
        sum(len(getattr(found, what)) for found in findings)
        for what in ("lost", "duplicated", "wrong", "broken")
    ]
    times = [outcome.recovery_s for outcome in outcomes]
    cells = [
        name,
        len(outcomes),
        *counts,
        *(f"{report.percentile(times, percent):.1f}" for percent in (50, 99)),
    ]
    return f"| {' | '.join(map(str, cells))} |"


def write(docs: Path, text: str) -> None:
    """Replace the text between the markers."""
    content = docs.read_text(encoding="utf-8")
    before, _, rest = content.partition(BEGIN)
    _, _, after = rest.partition(END)
    docs.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
