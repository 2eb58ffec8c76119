"""Measures `sds-clip embed` against the bare path on the same JPEGs, and searches.

The model is ViT-B/32 with random weights, and the JPEGs are distinct and have 640x480 pixels. The bare path has the
files in memory, decodes them and encodes them in batches, and keeps nothing. Embedding begins with the folder and
ends with the file.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from bench import child, report, servers, weights
from bench.bare import BareSpec, run_bare
from bench.folders_embed import EmbedSpec, measure_embed
from bench.folders_search import Searched, measure_search
from bench.options import cache_option, option, parse
from bench.report import Target, at_least, at_most, note
from bench.rounds import in_turns
from bench.sets import make_images
from sds_clip.models.markdown import markdown_table

BATCH_SIZE = 32
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
    images = [str(path) for path in make_images(folder, plan.images)]
    environment = servers.environment_variables(plan.cache)
    out = plan.cache / f"folder{plan.suffix}"
    bare = BareSpec(model, "cpu", plan.precision, images, BATCH_SIZE, 1, servers.THREADS)
    ours = EmbedSpec(model, plan.precision, str(folder), str(out), BATCH_SIZE, servers.THREADS)

    def run_ours() -> Rates:
        for old in plan.cache.glob("folder.*"):
            old.unlink()
        return {"": plan.images / child.call(measure_embed, ours, environment=environment)}

    runs: dict[str, Callable[[], Rates]] = {
        "bare path": lambda: run_bare(bare, environment).rates,
        f"sds-clip embed, {plan.suffix}": run_ours,
    }
    found = in_turns("embedding", plan.rounds, runs)
    rates = {name: [max(each.values()) for each in results] for name, results in found.items()}
    ratios = {name: report.paired_ratio(each, rates["bare path"]) for name, each in rates.items()}
    table = markdown_table(
        (f"{plan.images} JPEGs, {plan.precision}", "images a second", "of bare"),
        [[name, report.spread(each, 1), f"{ratios[name]:.3f}"] for name, each in rates.items()],
    )
    ways = "; ".join(f"{way} {rate:.1f}" for way, rate in found["bare path"][-1].items())
    text = f"{table}\n\nThe bare path's best way counts (images a second, last round: {ways})."
    ratio = ratios[f"sds-clip embed, {plan.suffix}"]
    return text, [at_least("throughput of embedding a folder over the bare path's", ratio, 0.9)]


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
