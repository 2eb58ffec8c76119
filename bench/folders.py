"""Measures `sds-clip embed` against the bare path and a peer on the same JPEGs, and searches.

The model is ViT-B/32 with random weights, and the JPEGs are distinct and have 640x480 pixels. The bare path has the
files in memory, decodes them and encodes them in batches, and keeps nothing. Embedding begins with the folder and
ends with the file. The peer is infinity-emb's offline engine, which computes in float32 on a CPU.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from bench import child, embedders, report, servers, weights
from bench.bare import BareSpec, run_bare
from bench.folders_embed import EmbedSpec, Infinity, least_cosine, measure_embed
from bench.folders_search import Searched, measure_search
from bench.options import cache_option, option, parse
from bench.report import Target, at_least, at_most, note
from bench.rounds import in_turns
from bench.sets import make_images
from sds_clip.models.markdown import markdown_table

BATCH_SIZE = 32
COMPARED = 64
"""Images whose embeddings are compared with the peer's."""
PEER = "infinity-emb"
Rates = dict[str, float]
"""Images a second, by the way in which they were embedded."""


@dataclass(frozen=True)
class Plan:
    """How much is measured."""

    rounds: int = option(3, "Number of rounds in which the systems take turns.", quick=1)
    images: int = option(2000, "Number of JPEGs.", quick=64)
    precision: str = option("auto", "Precision of the model.")
    suffix: str = option(".npy", "Format of the embeddings: .npy, .arrow or .parquet.")
    rows: int = option(1_000_000, "The largest number of rows that is searched.", quick=10_000)
    skip_peers: bool = option(False, "Measure only this project and its bare path.")
    skip_embed: bool = option(False, "Measure no embedding.")
    skip_search: bool = option(False, "Measure no search.")
    cache: Path = cache_option()


def main(arguments: list[str] | None = None) -> None:
    plan = parse(Plan, "bench.folders", __doc__, arguments)
    heading = report.heading("bench.folders", arguments)
    model = f"local-dir:{weights.make_open_clip(plan.cache / weights.ARCHITECTURE)}"
    paragraphs = [f"{report.versions(report.SERVICE)}. {servers.THREADS} threads."]
    targets: list[Target] = []
    for is_skipped, measure in ((plan.skip_embed, _embedding), (plan.skip_search, _search)):
        if not is_skipped:
            found, met = measure(plan, model)
            paragraphs.append(found)
            targets += met
    report.show(heading, *paragraphs, targets=targets)


def _embedding(plan: Plan, model: str) -> tuple[str, list[Target]]:
    folder = plan.cache / f"folder-{plan.images}"
    images = make_images(folder, plan.images)
    environment = servers.environment_variables(plan.cache)
    out = plan.cache / f"folder{plan.suffix}"
    bare = BareSpec(model, plan.precision, [str(path) for path in images], BATCH_SIZE, 1, servers.THREADS)
    ours = EmbedSpec(model, plan.precision, str(folder), str(out), BATCH_SIZE, servers.THREADS)
    peer = None if plan.skip_peers else _infinity(plan, folder)

    def run_ours() -> Rates:
        for old in plan.cache.glob("folder.*"):
            old.unlink()
        seconds = child.call(measure_embed, ours, environment=environment)
        return {"": plan.images / seconds}

    runs: dict[str, Callable[[], Rates]] = {
        "bare": lambda: run_bare(bare, environment).rates,
        "embed": run_ours,
    }
    names = {"bare": "bare path", "embed": f"sds-clip embed, {plan.suffix}"}
    if peer is not None:
        measure = peer.measure
        runs[PEER] = lambda: {"": plan.images / measure(environment)}
        names[PEER] = "infinity-emb's SyncEngineArray.image_embed, .npy"
    found = in_turns("embedding", plan.rounds, runs)
    rates = {name: [max(each.values()) for each in results] for name, results in found.items()}
    ratio = report.paired_ratio(rates["embed"], rates["bare"])
    table = markdown_table(
        (
            f"{plan.images} JPEGs, {plan.precision}",
            "images a second",
            "of bare",
            *[f"of {PEER}"] * bool(peer),
        ),
        [
            [
                names[name],
                report.spread(each, 1),
                *(
                    f"{report.paired_ratio(each, rates[other]):.3f}"
                    for other in ("bare", PEER)
                    if other in rates
                ),
            ]
            for name, each in rates.items()
        ],
    )
    ways = "; ".join(f"{way} {rate:.1f}" for way, rate in found["bare"][-1].items())
    text = [table, f"The bare path's best way counts (images a second, last round: {ways})."]
    if peer is not None:
        versions = embedders.installed_versions(
            peer.environment, ["infinity-emb", "torch", "transformers", "pillow"]
        )
        cosine = least_cosine(out, peer.out, COMPARED)
        text.append(
            f"{PEER}'s environment: {versions}. It computes in float32. The lowest cosine between its embedding of an "
            f"image and ours was {cosine:.6f} among {min(COMPARED, plan.images)} images."
        )
    return "\n\n".join(text), [at_least("throughput of embedding a folder over the bare path's", ratio, 0.9)]


def _infinity(plan: Plan, folder: Path) -> Infinity:
    """The peer, with its environment and its copy of the weights."""
    environment = plan.cache / "venv-infinity"
    embedders.install(environment, embedders.INFINITY_REQUIREMENTS)
    copy = weights.make_huggingface(
        plan.cache / weights.ARCHITECTURE, plan.cache / f"{weights.ARCHITECTURE}-hf"
    )
    return Infinity(environment, copy, folder, plan.cache / "peer.npy", BATCH_SIZE)


def _search(plan: Plan, model: str) -> tuple[str, list[Target]]:
    counts = [count for count in (10_000, 100_000, 1_000_000) if count <= plan.rows]
    found: list[Searched] = []
    for count in counts:
        for suffix in (".npy", ".arrow", ".parquet"):
            note(f"search: {count} rows, {suffix}")
            environment = servers.environment_variables(plan.cache)
            found.append(child.call(measure_search, plan.cache, count, suffix, environment=environment))
    table = markdown_table(
        ("rows of 512 numbers", "file", "search ms", "first search ms", "copy s"),
        [each.cells() for each in found],
        text=(1,),
    )
    slowest = max(median(each.seconds) for each in found if each.rows == counts[-1])
    return table, [at_most(f"search of {counts[-1]} rows, slowest file, s", slowest, 1)]


if __name__ == "__main__":
    main()
