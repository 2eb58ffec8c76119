"""Serving benchmark: this service, its bare path and its peers in one run, printed as one Markdown table.

ViT-B/32 with random weights, distinct 640x480 JPEGs, CPU; the same load generator for every server,
one server at a time, in interleaved rounds because shared machines drift. Weights, images and the
peers' environments are made once under `.cache/bench`.
"""

import argparse
import datetime
import signal
import sys
from collections import defaultdict
from pathlib import Path

from bench import report
from bench.bare import BareResult
from bench.measure import (
    PRECISIONS,
    Measured,
    Plan,
    contestants,
    measure_bare,
    measure_extras,
    measure_server,
    note,
    prepare,
)
from bench.summary import notes, rows, targets


def main(arguments: list[str] | None = None) -> None:
    """Measure everything and print the report."""
    # A terminated benchmark still ends the server that it started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    plan = parse(arguments)
    heading = f"{report.machine()}."
    inputs = prepare(plan)
    systems = contestants(plan, inputs)
    measured = {key: Measured(server.name) for key, server in systems.items()}
    bare: dict[str, list[BareResult]] = defaultdict(list)
    for number in range(plan.rounds):
        for key, server in systems.items():
            note(f"round {number + 1} of {plan.rounds}: {server.name}")
            if key in PRECISIONS:
                bare[key].append(measure_bare(plan, inputs, key))
            measure_server(plan, inputs, server, measured[key])
    note("one idle client by endpoint, and memory")
    extras = measure_extras(plan, inputs, systems["auto"])

    command = " ".join(["python -m bench.serve", *(arguments if arguments is not None else sys.argv[1:])])
    print(f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d}, `{command}`\n")
    print(heading)
    print(versions(plan) + "\n")
    print(report.table(rows(measured, bare, extras)) + "\n")
    print(notes(plan, measured, bare, extras) + "\n")
    print(report.verdicts(targets(plan, measured, bare, extras)))


def parse(arguments: list[str] | None) -> Plan:
    """The command line as a plan."""
    parser = argparse.ArgumentParser(prog="python -m bench.serve", description=__doc__)
    parser.add_argument(
        "--quick", action="store_true", help="one short round: a smoke test, not a measurement"
    )
    parser.add_argument(
        "--skip-peers", action="store_true", help="measure this service and its bare path only"
    )
    parser.add_argument("--rounds", type=int, help="interleaved repetitions (3, or 1 with --quick)")
    parser.add_argument(
        "--requests", type=int, help="requests at 32 clients a round (384, or 96 with --quick)"
    )
    parser.add_argument(
        "--cache", type=Path, default=Path(".cache/bench"), help="weights, images, environments"
    )
    options = parser.parse_args(arguments)
    quick = options.quick
    return Plan(
        rounds=options.rounds or (1 if quick else 3),
        requests=options.requests or (96 if quick else 384),
        idle_requests=12 if quick else 40,
        memory_requests=256 if quick else 2000,
        peers=not options.skip_peers,
        cache=options.cache.resolve(),
    )


def versions(plan: Plan) -> str:
    """What ran, ours and the peers'."""
    lines = [f"This service: {report.own_versions()}."]
    if plan.peers:
        names = ["infinity-emb", "torch", "transformers", "pillow"]
        lines.append(
            f"infinity-emb's environment: {report.peer_versions(plan.cache / 'venv-infinity', names)}."
        )
        names = ["litserve", "torch", "open_clip_torch", "pillow"]
        lines.append(f"LitServe's environment: {report.peer_versions(plan.cache / 'venv-litserve', names)}.")
    return " ".join(lines)


if __name__ == "__main__":
    main()
