"""Serving benchmark: this service, its bare path and its peers in one run, printed as one Markdown table.

ViT-B/32 with random weights, distinct 640x480 JPEGs, on the CPU. Every server gets the same load, one server
at a time, in interleaved rounds because shared machines drift. Weights, images and the peers' environments
are created once under `.cache/bench`.
"""

import argparse
import signal
import sys
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from bench import report, servers
from bench.bare import BareResult
from bench.report import Target, note
from bench.serve_measure import (
    BATCH_SIZE,
    CLIENTS,
    INFINITY,
    PRECISIONS,
    Extras,
    Measured,
    Plan,
    contestants,
    measure_bare,
    measure_extras,
    measure_server,
    prepare,
)

COLUMNS = (
    "system", "work", "clients", "a second", "p50 ms", "p95 ms", "p99 ms", "compared", "min cosine", "RSS MiB",
)  # fmt: skip


@dataclass(frozen=True)
class Row:
    """One row of the table: requests a second per round, all latencies, and other measurements."""

    system: str
    work: str
    clients: str
    rates: Sequence[float] = ()
    latencies_ms: Sequence[float] = ()
    compared: str = ""
    resident_mib: float | None = None
    min_cosine: float | None = None

    def cells(self) -> list[str]:
        rate = (
            report.spread(self.rates, 1)
            if len(self.rates) > 1
            else "".join(f"{each:.1f}" for each in self.rates)
        )
        latencies = [
            f"{report.percentile(self.latencies_ms, percent):.1f}" if self.latencies_ms else ""
            for percent in (50, 95, 99)
        ]
        cosine = "" if self.min_cosine is None else f"{self.min_cosine:.6f}"
        resident = "" if self.resident_mib is None else f"{self.resident_mib:.0f}"
        return [self.system, self.work, self.clients, rate, *latencies, self.compared, cosine, resident]


def main(arguments: list[str] | None = None) -> None:
    # So that a terminated benchmark still ends the server it started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    plan = parse(arguments)
    heading = report.machine()
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

    print(report.command("bench.serve", arguments) + "\n")
    print(heading)
    print(versions(plan) + "\n")
    print(table(rows(measured, bare, extras)) + "\n")
    print(notes(plan, measured, bare, extras) + "\n")
    print(report.verdicts(targets(plan, measured, bare, extras)))


def parse(arguments: list[str] | None) -> Plan:
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
    lines = [f"This service: {report.versions(report.SERVICE)}."]
    if plan.peers:
        names = ["infinity-emb", "torch", "transformers", "pillow"]
        lines.append(
            f"infinity-emb's environment: {report.peer_versions(plan.cache / 'venv-infinity', names)}."
        )
        names = ["litserve", "torch", "open_clip_torch", "pillow"]
        lines.append(f"LitServe's environment: {report.peer_versions(plan.cache / 'venv-litserve', names)}.")
    return " ".join(lines)


def table(rows: Sequence[Row]) -> str:
    return report.markdown(COLUMNS, [row.cells() for row in rows], text=(0, 1, 7))


def rows(measured: dict[str, Measured], bare: dict[str, list[BareResult]], extras: Extras) -> list[Row]:
    """The table's rows: load, then one idle client, then the other endpoints."""
    lines = []
    for precision in PRECISIONS:
        rates = [result.images_per_second for result in bare[precision]]
        lines.append(
            Row(f"bare path, {shown(precision, extras)}", f"batches of {BATCH_SIZE}", "in process", rates)
        )
    for key, server in measured.items():
        rates = [load.requests_per_second for load in server.loads]
        latencies = [latency for load in server.loads for latency in load.latencies_ms["embed"]]
        compared = []
        if key != INFINITY and INFINITY in measured:
            compared.append(f"{throughput_ratio(server, measured[INFINITY]):.2f} x infinity-emb")
        if key in PRECISIONS:
            compared.append(f"{of_bare(server, bare[key]):.2f} of bare")
        lines.append(
            Row(
                shown(server.name, extras),
                "embed an image",
                str(CLIENTS),
                rates,
                latencies,
                ", ".join(compared),
                server.resident_mib,
                server.min_cosine,
            )
        )
    for precision in PRECISIONS:
        latencies = [latency for result in bare[precision] for latency in result.single_ms]
        lines.append(Row(f"bare path, {shown(precision, extras)}", "an image", "in process", (), latencies))
    for key, server in measured.items():
        latencies = [latency for idle in server.idles for latency in idle.latencies_ms["embed"]]
        compared = [f"{idle_ratio(server, bare[key]):.2f} x bare"] if key in PRECISIONS else []
        lines.append(
            Row(shown(server.name, extras), "embed an image", "1", (), latencies, ", ".join(compared))
        )
    work = {
        "embed": "/embed, beside the next two",
        "classify": "/classify, 1,000 known labels",
        "match": "/match, 4 texts",
    }
    for name, latencies in extras.latencies_ms.items():
        ratio = median(latencies) / median(extras.latencies_ms["embed"])
        compared = [] if name == "embed" else [f"{ratio:.2f} x /embed"]
        lines.append(
            Row(f"sds-clip, {extras.precision}", work[name], "1", (), latencies, ", ".join(compared))
        )
    return lines


def targets(
    plan: Plan, measured: dict[str, Measured], bare: dict[str, list[BareResult]], extras: Extras
) -> list[Target]:
    ours = measured["auto"]
    promises = []
    if INFINITY in measured:
        ratio = throughput_ratio(ours, measured[INFINITY])
        promises.append(Target("throughput at 32 clients over infinity-emb's", ratio, 2.3, at_least=True))
    classify = median(extras.latencies_ms["classify"]) / median(extras.latencies_ms["embed"])
    growth = extras.resident_after_mib / extras.resident_before_mib
    return [
        *promises,
        Target("lowest cosine to open_clip in float32", ours.min_cosine, 0.9999, at_least=True),
        Target(
            "throughput at 32 clients over the bare path's", of_bare(ours, bare["auto"]), 0.9, at_least=True
        ),
        Target(
            "one idle client's median over the bare path's",
            idle_ratio(ours, bare["auto"]),
            1.25,
            at_least=False,
        ),
        Target("/classify with known labels over /embed, medians", classify, 1.1, at_least=False),
        Target(
            f"resident memory after {plan.memory_requests} requests over before", growth, 1.05, at_least=False
        ),
    ]


def notes(
    plan: Plan, measured: dict[str, Measured], bare: dict[str, list[BareResult]], extras: Extras
) -> str:
    share = max(load.cpu_seconds / load.seconds for server in measured.values() for load in server.loads)
    ways = "; ".join(f"{shown(precision, extras)} {_by_way(results)}" for precision, results in bare.items())
    return (
        f"{plan.rounds} interleaved rounds of {plan.requests} requests after {plan.warmup} to warm up, each "
        f"another 640x480 JPEG as a data URI; {servers.THREADS} threads for every system. Rates are medians "
        "over rounds, ratios medians of each round's ratio, latencies over all rounds. The load generator "
        f"took at most {share:.1%} of a core. The bare path decodes during the last batch's forward or in turns "
        "with it, its OpenMP threads spin (ACTIVE) or sleep (PASSIVE) while they wait, and the best way counts "
        f"(images a second: {ways}). The first "
        f"/classify with 1,000 new labels took {extras.first_classify_s:.1f} s. Resident memory before and "
        f"after {plan.memory_requests} requests: {extras.resident_before_mib:.0f} and "
        f"{extras.resident_after_mib:.0f} MiB."
    )


def _by_way(results: list[BareResult]) -> str:
    rates = {way: median([result.rates[way] for result in results]) for way in results[0].rates}
    return ", ".join(f"{rate:.1f} {way}" for way, rate in rates.items())


def throughput_ratio(server: Measured, other: Measured) -> float:
    """Requests a second of one server over another's in the same round; median over rounds."""
    pairs = zip(server.loads, other.loads, strict=True)
    return median([load.requests_per_second / against.requests_per_second for load, against in pairs])


def of_bare(server: Measured, bare: list[BareResult]) -> float:
    """Requests a second over the bare path's images a second in the same round; median over rounds."""
    pairs = zip(server.loads, bare, strict=True)
    return median([load.requests_per_second / result.images_per_second for load, result in pairs])


def idle_ratio(server: Measured, bare: list[BareResult]) -> float:
    """One client's median latency over the bare path's in the same round; median over rounds."""
    pairs = zip(server.idles, bare, strict=True)
    return median([median(idle.latencies_ms["embed"]) / median(result.single_ms) for idle, result in pairs])


def shown(name: str, extras: Extras) -> str:
    """The name, with the precision that `auto` picked."""
    return name.replace("auto", f"{extras.precision} (auto)")


if __name__ == "__main__":
    main()
