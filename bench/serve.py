"""Measures this service, its bare path and its peers in one run, and prints one Markdown table.

All serve ViT-B/32 with random weights and get distinct JPEGs, of 640x480 unless --width says otherwise, on the
CPU. Every server gets the same load, one server at a time, in interleaved rounds because shared machines drift.
Weights, images and the peers' environments are created once under `.cache/bench`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from statistics import median

from bench import embedders, report, servers
from bench.options import parse
from bench.report import Target, at_least, at_most, note
from bench.rounds import in_turns
from bench.serve_measure import (
    BATCH_SIZE,
    CLIENTS,
    INFINITY,
    PRECISIONS,
    Extras,
    Plan,
    Round,
    contestants,
    measure,
    measure_extras,
    prepare,
)
from sds_clip.models.markdown import markdown_table

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
            report.spread(self.rates, 1) if len(self.rates) > 1 else "".join(f"{x:.1f}" for x in self.rates)
        )
        latencies = report.percentiles(self.latencies_ms, 1)
        cosine = "" if self.min_cosine is None else f"{self.min_cosine:.6f}"
        resident = "" if self.resident_mib is None else f"{self.resident_mib:.0f}"
        return [self.system, self.work, self.clients, rate, *latencies, self.compared, cosine, resident]


def main(arguments: list[str] | None = None) -> None:
    plan = parse(Plan, "bench.serve", __doc__, arguments)
    heading = report.heading("bench.serve", arguments)
    inputs = prepare(plan)
    systems = contestants(plan, inputs)
    runs = {key: partial(measure, plan, inputs, key, system) for key, system in systems.items()}
    rounds = in_turns("serving", plan.rounds, runs)
    note("one idle client by endpoint, and memory")
    extras = measure_extras(plan, inputs, systems["auto"])
    names = {key: shown(system.name, extras) for key, system in systems.items()}
    report.show(
        f"{heading}\n{versions(plan)}",
        table(rows(names, rounds, extras)),
        notes(plan, rounds, extras),
        targets=targets(plan, rounds, extras),
    )


def versions(plan: Plan) -> str:
    lines = [f"This service: {report.versions(report.SERVICE)}."]
    peers = {
        "infinity-emb": ("infinity", ["infinity-emb", "torch", "transformers", "pillow"]),
        "LitServe": ("litserve", ["litserve", "torch", "open_clip_torch", "pillow"]),
    }
    for name, (environment, packages) in ({} if plan.skip_peers else peers).items():
        found = embedders.installed_versions(plan.cache / f"venv-{environment}", packages)
        lines.append(f"{name}'s environment: {found}.")
    return " ".join(lines)


def table(rows: Sequence[Row]) -> str:
    return markdown_table(COLUMNS, [row.cells() for row in rows], text=(0, 1, 7))


def rows(names: dict[str, str], rounds: dict[str, list[Round]], extras: Extras) -> list[Row]:
    """The table's rows: load, then one idle client, then the other endpoints."""
    bare_names = {key: f"bare path, {shown(key, extras)}" for key in PRECISIONS}
    work, place = f"batches of {BATCH_SIZE}", "in process"
    lines = [Row(bare_names[key], work, place, bare_rates(rounds[key])) for key in PRECISIONS]
    for key in PRECISIONS:
        lines.append(Row(f"{bare_names[key]}, packed weights", work, place, packed_rates(rounds[key])))
    for key, found in rounds.items():
        compared = []
        if key != INFINITY and INFINITY in rounds:
            compared.append(
                f"{report.paired_ratio(rates(found), rates(rounds[INFINITY])):.2f} x infinity-emb"
            )
        if key in PRECISIONS:
            packed = report.paired_ratio(rates(found), packed_rates(found))
            compared.append(f"{of_bare(found):.2f} of bare, {packed:.2f} of packed bare")
        if f"before {key}" in rounds:
            gain = report.paired_ratio(rates(found), rates(rounds[f"before {key}"]))
            compared.append(f"{gain:.2f} x before")
        latencies = [latency for each in found for latency in each.load.latencies_ms["embed"]]
        resident_mib = max(each.resident_mib for each in found)
        min_cosine = min(each.min_cosine for each in found)
        lines.append(
            Row(
                names[key], "embed an image", str(CLIENTS), rates(found), latencies, ", ".join(compared),
                resident_mib, min_cosine,
            )
        )  # fmt: skip
    for key in PRECISIONS:
        latencies = [latency for each in rounds[key] if each.bare for latency in each.bare.single_ms]
        lines.append(Row(bare_names[key], "an image", place, (), latencies))
    for key, found in rounds.items():
        latencies = [latency for each in found for latency in each.idle_ms]
        shares = [f"{idle_over_bare(found):.2f} x bare"] if key in PRECISIONS else []
        if f"before {key}" in rounds:
            shares.append(f"{idle_over(found, rounds[f'before {key}']):.2f} x before")
        lines.append(Row(names[key], "embed an image", "1", (), latencies, ", ".join(shares)))
    endpoints = {
        "embed": "/embed, beside the next three",
        "classify": "/classify, 1,000 known labels",
        "match": "/match, 4 texts",
        "openai": "/v1/embeddings",
    }
    for call, latencies in extras.latencies_ms.items():
        over = "" if call == "embed" else f"{extras.over_embed(call):.2f} x /embed"
        lines.append(Row(f"sds-clip, {extras.precision}", endpoints[call], "1", (), latencies, over))
    return lines


def targets(plan: Plan, rounds: dict[str, list[Round]], extras: Extras) -> list[Target]:
    ours = rounds["auto"]
    promises = []
    if INFINITY in rounds:
        ratio = report.paired_ratio(rates(ours), rates(rounds[INFINITY]))
        promises.append(at_least("throughput at 32 clients over infinity-emb's", ratio, 2.3))
    cosine = min(each.min_cosine for each in ours)
    growth = extras.resident_after_mib / extras.resident_before_mib
    return [
        *promises,
        at_least("lowest cosine to open_clip in float32", cosine, 0.9999),
        at_least("throughput at 32 clients over the bare path's", of_bare(ours), 0.9),
        at_most("one idle client's median over the bare path's", idle_over_bare(ours), 1.25),
        at_most("/classify with known labels over /embed, medians", extras.over_embed("classify"), 1.1),
        at_most("/v1/embeddings over /embed, medians", extras.over_embed("openai"), 1.05),
        at_most(f"resident memory after {plan.memory_requests} requests over before", growth, 1.05),
    ]


def notes(plan: Plan, rounds: dict[str, list[Round]], extras: Extras) -> str:
    loads = [each.load for found in rounds.values() for each in found]
    loop_ms = median([each.loop_ms for each in rounds["auto"]])
    share = max(load.cpu_seconds / load.seconds for load in loads)
    ways = "; ".join(f"{shown(key, extras)} {_by_way(rounds[key])}" for key in PRECISIONS)
    return (
        f"{plan.rounds} interleaved rounds of {plan.requests} requests after {plan.warmup} to warm up, each "
        f"another {plan.width}x{plan.width * 3 // 4} JPEG as a data URI; {servers.THREADS} threads for every "
        "system. Rates are medians over rounds, ratios medians of each round's ratio, latencies over all rounds. "
        f"The load generator took at most {share:.1%} of a core. The service's event loop took {loop_ms:.1f} "
        "ms of a core for a request. The bare path decodes during the last batch's "
        "forward or in turns with it, its OpenMP threads spin (ACTIVE) or sleep (PASSIVE) while they wait, and the "
        f"best way counts (images a second: {ways}). The first /classify with 1,000 new labels took "
        f"{extras.first_classify_s:.1f} s. Resident memory before and after {plan.memory_requests} requests: "
        f"{extras.resident_before_mib:.0f} and {extras.resident_after_mib:.0f} MiB."
    )


def _by_way(rounds: Sequence[Round]) -> str:
    bare = [each.bare.rates for each in rounds if each.bare]
    return ", ".join(f"{median([found[way] for found in bare]):.1f} {way}" for way in bare[0])


def rates(rounds: Sequence[Round]) -> list[float]:
    return [each.load.requests_per_second for each in rounds]


def bare_rates(rounds: Sequence[Round]) -> list[float]:
    return [each.bare.images_per_second for each in rounds if each.bare]


def packed_rates(rounds: Sequence[Round]) -> list[float]:
    return [each.bare.packed_rate for each in rounds if each.bare]


def of_bare(rounds: Sequence[Round]) -> float:
    """Requests a second over the bare path's images a second."""
    return report.paired_ratio(rates(rounds), bare_rates(rounds))


def idle_over_bare(rounds: Sequence[Round]) -> float:
    """One client's median latency over the bare path's."""
    bare = [median(each.bare.single_ms) for each in rounds if each.bare]
    return report.paired_ratio([median(each.idle_ms) for each in rounds], bare)


def idle_over(rounds: Sequence[Round], others: Sequence[Round]) -> float:
    """One client's median latency over that of another server."""
    return report.paired_ratio(*([median(each.idle_ms) for each in found] for found in (rounds, others)))


def shown(name: str, extras: Extras) -> str:
    """The name, with the precision that `auto` picked."""
    return name.replace("auto", f"{extras.precision} (auto)")


if __name__ == "__main__":
    main()
