"""Measures `sds-clip embed` against the bare path on the same JPEGs, `sds-clip search`, and what a kill costs.

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
from bench.folders_kill import Kills, kill_and_resume
from bench.folders_search import Searched, measure_search
from bench.options import cache_option, option, parse
from bench.report import Target, at_least, at_most, note
from bench.rounds import in_turns
from bench.sets import make_images
from models.markdown import markdown_table

BATCH_SIZE = 32
KILL_MODEL, KILL_BATCH_SIZE = "demo", 8
"""A small model, so that most of a run is not its start, and many batches."""
Rates = dict[str, float]
"""Images a second, by the way in which they were embedded."""


@dataclass(frozen=True)
class Plan:
    """How much is measured."""

    rounds: int = option(1, "Number of rounds in which both ways take turns.")
    images: int = option(2000, "Number of JPEGs.", quick=64)
    precision: str = option("auto", "Precision of the model.")
    suffix: str = option(".npy", "Format of the embeddings: .npy, .arrow or .parquet.")
    kills: int = option(10, "Number of runs that are killed.", quick=1)
    kill_images: int = option(320, "Number of JPEGs in such a run.", quick=64)
    rows: int = option(1_000_000, "The largest number of rows that is searched.", quick=10_000)
    skip_embed: bool = option(False, "Measure no embedding.")
    skip_search: bool = option(False, "Measure no search.")
    skip_kills: bool = option(False, "Kill nothing.")
    cache: Path = cache_option()


def main(arguments: list[str] | None = None) -> None:
    plan = parse(Plan, "bench.folders", __doc__, arguments)
    heading = report.heading("bench.folders", arguments)
    model = f"local-dir:{weights.make_open_clip(plan.cache / weights.ARCHITECTURE)}"
    paragraphs = [f"{report.versions(report.SERVICE)}. {servers.THREADS} threads."]
    targets: list[Target] = []
    for is_skipped, measure in (
        (plan.skip_embed, _embedding),
        (plan.skip_search, _search),
        (plan.skip_kills, _kills),
    ):
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

    def run_ours() -> Rates:
        for old in plan.cache.glob("folder.*"):
            old.unlink()
        seconds = child.call(measure_embed, ours, environment=environment)
        return {"": plan.images / seconds}

    runs: dict[str, Callable[[], Rates]] = {
        "bare": lambda: run_bare(bare, environment).rates,
        "embed": run_ours,
    }
    found = in_turns("embedding", plan.rounds, runs)
    rates = {name: [max(each.values()) for each in results] for name, results in found.items()}
    ratio = report.paired_ratio(rates["embed"], rates["bare"])
    rows = [
        ["bare path", report.spread(rates["bare"], 1), "1"],
        [f"sds-clip embed, {plan.suffix}", report.spread(rates["embed"], 1), f"{ratio:.3f}"],
    ]
    table = markdown_table(
        (f"{plan.images} JPEGs, {plan.precision}", "images a second", "of bare"), rows, text=(0,)
    )
    ways = "; ".join(f"{way} {rate:.1f}" for way, rate in found["bare"][-1].items())
    text = f"{table}\n\nThe bare path's best way counts (images a second, last round: {ways})."
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


def _kills(plan: Plan, model: str) -> tuple[str, list[Target]]:
    folder = plan.cache / f"folder-{plan.kill_images}"
    make_images(folder, plan.kill_images)
    found: Kills = kill_and_resume(plan.cache, folder, KILL_MODEL, plan.suffix, plan.kills, KILL_BATCH_SIZE)
    return found.text(plan.kill_images), [
        at_least("killed and continued runs whose file has the same bytes", found.equal, plan.kills),
        at_most("batches computed again after a kill", max(found.repeated), 1),
    ]


if __name__ == "__main__":
    main()
