"""Measures what it costs to serve many versions of one base.

The versions differ in their LayerNorms, or with --lora in factors of this rank beside their attention. 32 clients ask
for /match with one image and two texts, without pauses: all for one version, or each request for another one of 10, 100
or 1,000, evenly or by Zipf's law. All versions are in memory before the clock starts. Then a server starts anew, and
versions that it never loaded are asked for, one after the other, with texts that are new; and again after another start
on the same state. At last, a catalogue of 10,000 versions is compared with one of 10.
"""

import json
import random
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median

from bench import report
from bench.load import IMAGE, Call, LoadResult, LoadSpec, run_load, text_of
from bench.options import cache_option, option, parse
from bench.report import Target, at_least, at_most, note
from bench.rounds import in_turns
from bench.servers import Running
from bench.swap_system import find_inputs
from bench.version_set import make_version_set, register_only, serving
from sds_clip.models.checkpoints.load import load_clip
from sds_clip.models.markdown import markdown_table

ONE = "one version"
CACHED = ("a photo of a dog", "a photo of a cat")
ZIPF = 1.1


@dataclass(frozen=True)
class Plan:
    """How much is measured."""

    model: str = option("", "Base. Without it, ViT-B/32 with random weights is created.", quick="demo")
    precision: str = option("auto", "Precision of the service: auto, float32 or bfloat16.")
    versions: int = option(1000, "Largest number of versions.", quick=20)
    lora: int = option(0, "Rank of the versions, which are then of LoRA. With 0, they are of LayerNorms.")
    requests: int = option(400, "Number of requests of a measurement.", quick=64)
    rounds: int = option(3, "Number of rounds.", quick=1)
    clients: int = option(32, "Number of clients.", quick=8)
    firsts: int = option(50, "Number of versions whose first answers are timed.", quick=3)
    catalogue: int = option(10_000, "Number of registered versions.", quick=100)
    starts: int = option(5, "Number of starts on each catalogue.", quick=1)
    skip_load: bool = option(False, "Measure no throughput.")
    skip_first: bool = option(False, "Measure no first answers.")
    skip_catalogue: bool = option(False, "Measure no catalogue.")
    cache: Path = cache_option()

    @property
    def folder(self) -> Path:
        return self.cache / (f"versions-lora-{self.lora}" if self.lora else "versions")


@dataclass(frozen=True)
class Traffic:
    """Whom the clients ask, and whether their texts are cached."""

    name: str
    versions: tuple[str, ...]
    """The version of each request, in order."""
    is_cached: bool


def main(arguments: list[str] | None = None) -> None:
    plan = parse(Plan, "bench.versions", __doc__, arguments)
    heading = report.heading("bench.versions", arguments)
    model, images = find_inputs(plan.model, plan.cache)
    versions = make_version_set(plan.folder, model, plan.versions, plan.lora)
    paragraphs, targets = list[str](), list[Target]()
    for skipped, measure in (
        (plan.skip_load, measure_load),
        (plan.skip_first, measure_first_answers),
        (plan.skip_catalogue, measure_catalogue),
    ):
        if not skipped:
            table, found = measure(plan, model, images, versions)
            paragraphs.append(table)
            targets += found
    kind = f"LoRA of rank {plan.lora}" if plan.lora else "LayerNorms"
    report.show(
        f"{heading}\n{report.versions(report.SERVICE)}. {model}; versions of {kind}; precision {plan.precision}; "
        f"{plan.clients} clients.",
        *paragraphs,
        targets=targets,
    )


def measure_load(
    plan: Plan, model: str, images: Sequence[str], versions: Sequence[str]
) -> tuple[str, list[Target]]:
    traffics = [*kinds_of_traffic(plan, versions, True), *kinds_of_traffic(plan, versions, False)]
    with serving(plan.folder, model, plan.precision, plan.cache) as server:
        half = len(versions) // 2
        note(f"loading {len(versions)} versions")
        for version in versions[:half]:
            ask(server, version, images[0])
        before = server.resident_bytes()
        for version in versions[half:]:
            ask(server, version, images[0])
        grown = (server.resident_bytes() - before) / (len(versions) - half)
        runs = {
            (traffic.name, traffic.is_cached): partial(load, plan, server.port, images, traffic)
            for traffic in traffics
        }
        found = in_turns("load", plan.rounds, runs)
    rates = {key: [each.requests_per_second for each in results] for key, results in found.items()}
    rows, targets = [], list[Target]()
    for traffic in traffics:
        ours = rates[traffic.name, traffic.is_cached]
        ratio = report.paired_ratio(ours, rates[ONE, traffic.is_cached])
        texts = "cached" if traffic.is_cached else "new"
        rows.append([traffic.name, texts, report.spread(ours, 1), f"{ratio:.3f}"])
        if traffic.name != ONE:
            bound = 0.75 if plan.lora else 0.95 if traffic.is_cached else 0.9
            targets.append(at_least(f"{traffic.name}, {texts} texts, over one version", ratio, bound))
    base = load_clip(model, device="cpu", precision=plan.precision)
    share = grown / base.size_bytes
    targets.append(
        at_most("memory of a further version over the base's, %", 100 * share, 0.1 * max(plan.lora, 1))
    )
    columns = ("versions", "texts", "requests/s", "over one")
    return (
        markdown_table(columns, rows, text=(0, 1))
        + f"\n\nA further version in memory takes {grown / 1024:.0f} KiB of resident memory, measured over the second "
        f"half of them; the base {base.size_bytes / 2**20:.0f} MiB.",
        targets,
    )


def kinds_of_traffic(plan: Plan, versions: Sequence[str], is_cached: bool) -> list[Traffic]:
    chance = random.Random(0)
    total = plan.requests + 2 * plan.clients
    counts = [count for count in (10, 100, 1000) if count <= len(versions)]
    kinds = [Traffic(ONE, (versions[0],) * total, is_cached)]
    for count in counts:
        several = tuple(chance.choices(versions[:count], k=total))
        kinds.append(Traffic(f"{count}, evenly", several, is_cached))
    for count in counts[-2:]:
        weights = [1 / rank**ZIPF for rank in range(1, count + 1)]
        several = tuple(chance.choices(versions[:count], weights, k=total))
        kinds.append(Traffic(f"{count}, by Zipf {ZIPF}", several, is_cached))
    return kinds


def load(plan: Plan, port: int, images: Sequence[str], traffic: Traffic) -> LoadResult:
    start = random.randrange(10**9)  # texts of no earlier measurement
    calls = [
        Call("match", "/match", body(version, CACHED if traffic.is_cached else new_texts(start + number)))
        for number, version in enumerate(traffic.versions)
    ]
    return run_load(LoadSpec(port, calls, list(images), plan.clients, 2 * plan.clients, plan.requests))


def new_texts(number: int) -> tuple[str, str]:
    return text_of(number), f"no {text_of(number)}"


def body(version: str | None, texts: Sequence[str]) -> str:
    return json.dumps({"model": version, "images": [IMAGE], "texts": texts})


def measure_first_answers(
    plan: Plan, model: str, images: Sequence[str], versions: Sequence[str]
) -> tuple[str, list[Target]]:
    asked = versions[: plan.firsts]
    rows, over = [], dict[str, float]()
    shutil.rmtree(plan.folder / "state-first", ignore_errors=True)
    for name in ("never loaded", "checked before on this machine"):
        with serving(plan.folder, model, plan.precision, plan.cache, state="state-first") as server:
            for _ in range(8):
                ask(server, None, images[0])
            # Each request has texts of its own, which any version has to encode.
            first = [
                ask(server, version, images[0], new_texts(number)) for number, version in enumerate(asked)
            ]
            again = [
                ask(server, version, images[0], new_texts(~number)) for number, version in enumerate(asked)
            ]
        over[name] = median(first) - median(again)
        rows.append([name, *report.percentiles(first, 0), *report.percentiles(again, 0), f"{over[name]:.0f}"])
    columns = (
        "version",
        "first p50 ms",
        "p95 ms",
        "p99 ms",
        "again p50 ms",
        "p95 ms",
        "p99 ms",
        "difference ms",
    )
    return markdown_table(columns, rows, text=(0,)), [
        at_most("first answer of a version never loaded, ms more", over["never loaded"], 200),
        at_most("first answer of a checked version, ms more", over["checked before on this machine"], 50),
    ]


def measure_catalogue(
    plan: Plan, model: str, images: Sequence[str], versions: Sequence[str]
) -> tuple[str, list[Target]]:
    counts = (10, plan.catalogue)
    folders = {count: plan.folder / f"catalogue-{count}" for count in counts}
    for count, folder in folders.items():
        shutil.rmtree(folder, ignore_errors=True)
        register_only(folder, count)
    runs = {count: partial(look_at, plan, model, images[0], folder) for count, folder in folders.items()}
    found = in_turns("catalogue", plan.starts, runs)
    rows = [
        [
            count,
            *(
                report.spread(each, digits)
                for each, digits in zip(zip(*looks, strict=True), (1, 1, 0), strict=True)
            ),
        ]
        for count, looks in found.items()
    ]
    few, many = (list(zip(*found[count], strict=True)) for count in counts)
    pairs = zip(
        ("a page of /models", "start", "resident memory"),
        map(report.paired_ratio, many, few),
        (1.2, 1.1, 1.05),
        strict=True,
    )
    columns = ("registered versions", "GET /models?limit=10, ms", "start, s", "resident MiB")
    return markdown_table(columns, rows), [
        at_most(f"{name} of {plan.catalogue} versions over that of 10", ratio, bound)
        for name, ratio, bound in pairs
    ]


def look_at(plan: Plan, model: str, image: str, folder: Path) -> tuple[float, float, float]:
    """Milliseconds of a page, seconds of a start, and MiB of resident memory."""
    started = time.perf_counter()
    with serving(folder, model, plan.precision, plan.cache) as server:
        start_s = time.perf_counter() - started
        pages = []
        for _ in range(60):
            ask(server, None, image)
            started = time.perf_counter()
            server.get("/models?limit=10")
            pages.append(1000 * (time.perf_counter() - started))
        return median(pages), start_s, server.resident_bytes() / 2**20


def ask(server: Running, version: str | None, image: str, texts: Sequence[str] = CACHED) -> float:
    """Milliseconds of one request."""
    call = Call("match", "/match", body(version, texts))
    sent = call.filled(image)
    started = time.perf_counter()
    answer = server.post(call.path, sent)
    elapsed = time.perf_counter() - started
    if answer.status_code != 200:
        raise RuntimeError(f"{answer.status_code}: {answer.text[:300]}")
    return 1000 * elapsed


if __name__ == "__main__":
    main()
