"""From measurements to the report's table, notes and targets."""

from bench import servers
from bench.bare import BareResult
from bench.measure import BATCH_SIZE, CLIENTS, INFINITY, PRECISIONS, Extras, Measured, Plan
from bench.report import Row, Target, median


def rows(measured: dict[str, Measured], bare: dict[str, list[BareResult]], extras: Extras) -> list[Row]:
    """The table's lines: load, then one idle client, then the other endpoints."""
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
    """What the service promises."""
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
    """How to read the table."""
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
    """Requests a second of one server over another's in the same round, the median over rounds."""
    pairs = zip(server.loads, other.loads, strict=True)
    return median([load.requests_per_second / against.requests_per_second for load, against in pairs])


def of_bare(server: Measured, bare: list[BareResult]) -> float:
    """Requests a second over the bare path's images a second in the same round, the median over rounds."""
    pairs = zip(server.loads, bare, strict=True)
    return median([load.requests_per_second / result.images_per_second for load, result in pairs])


def idle_ratio(server: Measured, bare: list[BareResult]) -> float:
    """One client's median latency over the bare path's in the same round, the median over rounds."""
    pairs = zip(server.idles, bare, strict=True)
    return median([median(idle.latencies_ms["embed"]) / median(result.single_ms) for idle, result in pairs])


def shown(name: str, extras: Extras) -> str:
    """A name with the precision that `auto` picked."""
    return name.replace("auto", f"{extras.precision} (auto)")
