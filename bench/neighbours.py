"""Measures what a well-behaved API key notices of another one that floods the service.

The steady key sends /match with an image and two changing texts at random times, at `share` of the capacity that it has
alone. The other key has `clients` that ask again as soon as they are answered, whatever the answer, in each way that
bench.flood knows. Phases alternate in rounds, and each round has a phase alone at its beginning and one at its end. A
request's time counts from when it was due. All clients share the cores with the service, those of the flood at a low
priority.
"""

import io
import json
import shutil
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import httpx
import PIL.Image

from bench import report, servers
from bench.flood import KINDS, FloodSpec, run_flood
from bench.job_lists import fill
from bench.load import IMAGE, TEXT, Answer, Call, OpenSpec, run_open_load
from bench.options import cache_option, option, parse
from bench.report import at_most, note
from bench.rounds import in_turns
from bench.sets import demo_set, scene
from bench.swap_system import capacity_of, find_inputs
from bench.version_set import make_version_set, serving
from sds_clip.app.keys import create_key
from sds_clip.models.markdown import markdown_table

MATCH = Call("match", "/match", json.dumps({"images": [IMAGE], "texts": [TEXT, f"no {TEXT}"]}))
ALONE, AGAIN = "nothing", "nothing, once more"


@dataclass(frozen=True)
class Plan:
    """How much is measured."""

    model: str = option("", "Model. Without it, ViT-B/32 with random weights is created.", quick="demo")
    precision: str = option("auto", "Precision of the service: auto, float32 or bfloat16.")
    rounds: int = option(3, "Number of rounds in which the floods take turns.", quick=1)
    seconds: float = option(18.0, "Number of seconds of a phase.", quick=2.0)
    settle_s: float = option(
        3.0, "Number of seconds for which a flood runs before it is measured.", quick=0.5
    )
    share: float = option(0.2, "Share of the capacity at which the steady key's requests arrive.")
    capacity_requests: int = option(300, "Number of requests that measure the capacity.", quick=64)
    clients: int = option(96, "Number of clients of the flood.", quick=24)
    only: Sequence[str] = option(
        tuple(KINDS), "Floods to measure.", kind=str, choices=tuple(KINDS), nargs="+"
    )
    cache: Path = cache_option()

    @property
    def folder(self) -> Path:
        return self.cache / "neighbours"


@dataclass(frozen=True)
class Phase:
    """The steady key's answers, and the number of the flood's answers by outcome."""

    answers: list[Answer]
    flood: dict[str, int]


VERSIONS = 16
JOBS = 1000


def main(arguments: list[str] | None = None) -> None:
    plan = parse(Plan, "bench.neighbours", __doc__, arguments)
    heading = report.heading("bench.neighbours", arguments)
    model, images = find_inputs(plan.model, plan.cache)
    versions = make_version_set(plan.folder / "versions", model, VERSIONS)
    shutil.rmtree(plan.folder / "run", ignore_errors=True)
    shutil.copytree(plan.folder / "versions", plan.folder / "run")
    database = f"sqlite:///{plan.folder / 'run' / 'sds-clip.db'}"
    fill(database, JOBS, owner="flood")
    keys_file = plan.folder / "run" / "keys.json"
    sets = plan.folder / "run" / "sets"
    sets.mkdir()
    steady, flood = (
        create_key(keys_file, name, scopes)
        for name, scopes in (("steady", ["infer"]), ("flood", ["infer", "train"]))
    )
    with serving(
        plan.folder / "run",
        model,
        plan.precision,
        plan.cache,
        SDS_CLIP_KEYS_FILE=str(keys_file),
        SDS_CLIP_DATASET_ROOTS=str(sets),
        SDS_CLIP_SHARED_WORKSPACE="1",  # the versions that are compared belong to no key
    ) as running:
        dataset, job = own(running, flood, sets)
        spec = FloodSpec(
            running.port, flood, "", images[0], large_image(sets), versions, dataset, job, plan.clients, 0
        )
        note("capacity of the steady key alone, in a closed loop")
        capacity = capacity_of(running.port, images, plan.capacity_requests, calls=[MATCH], key=steady)
        rate = plan.share * capacity
        note(f"{capacity:.1f} requests a second; now {rate:.1f} at random")
        runs = {
            name: partial(measure, plan, replace(spec, kind=name), steady, images, rate)
            for name in (ALONE, *plan.only, AGAIN)
        }
        phases = in_turns("phase", plan.rounds, runs)
    together = {name: joined(found) for name, found in phases.items()}
    report.show(
        f"{heading}\n{report.versions(report.SERVICE)}. {model}; the steady key sends {rate:.1f} requests a second, "
        f"{plan.share:.0%} of its capacity of {capacity:.1f}; the flood has {plan.clients} clients.",
        table(together),
        floods(together),
        targets=targets(together),
    )


def own(running: servers.Running, key: str, sets: Path) -> tuple[str, str]:
    """The ids of a data set and of a job, which are made for the key. No worker runs, so they stay as they are."""
    demo_set(sets / "winoground", 2)
    headers = {"Authorization": f"Bearer {key}"}
    with httpx.Client(base_url=running.url, headers=headers, verify=False, timeout=60) as client:
        registered = {"name": "bench", "format": "winoground", "source": str(sets / "winoground")}
        dataset = client.post("/datasets", json=registered).raise_for_status().json()["id"]
        spec = {"model": "default", "benchmark": "winoground", "data": dataset}
        return dataset, client.post("/evaluate", json=spec).raise_for_status().json()["id"]


def large_image(folder: Path) -> str:
    """A JPEG of twelve megapixels."""
    path = folder / "large.jpg"
    PIL.Image.open(io.BytesIO(scene(0))).resize((4000, 3000)).save(path, quality=90)
    return str(path)


def measure(plan: Plan, spec: FloodSpec, key: str, images: list[str], rate: float) -> Phase:
    """A phase of the steady key, beside a flood unless it is alone."""
    with ThreadPoolExecutor(1) as thread:
        flood = None
        if spec.kind in KINDS:
            seconds = plan.settle_s + plan.seconds + 1
            flood = thread.submit(run_flood, replace(spec, seconds=seconds))
        time.sleep(plan.settle_s)
        answers = run_open_load(OpenSpec(spec.port, [MATCH], images, rate, plan.seconds, key=key))
        phase = Phase(answers, {} if flood is None else flood.result())
    note(", ".join(f"p{percent} {milliseconds(phase, percent):.0f} ms" for percent in (50, 90, 99)))
    return phase


def joined(phases: Sequence[Phase]) -> Phase:
    answers = [answer for phase in phases for answer in phase.answers]
    return Phase(answers, dict(sum((Counter(phase.flood) for phase in phases), Counter[str]())))


def milliseconds(phase: Phase, percent: float) -> float:
    """A percentile of the times. A failed request counts as one that never ended."""
    times = [1000 * answer.seconds if answer.status == "200" else float("inf") for answer in phase.answers]
    return report.percentile(times, percent)


def failed(phase: Phase) -> int:
    return sum(answer.status != "200" for answer in phase.answers)


def table(phases: dict[str, Phase]) -> str:
    """The steady key's times beside each flood, and what they are over those alone."""
    rows = []
    for name, phase in phases.items():
        row = [name, str(len(phase.answers)), str(failed(phase))]
        for percent in (50, 99):
            ms, alone = milliseconds(phase, percent), milliseconds(phases[ALONE], percent)
            row += [f"{ms:.0f}", f"{ms / alone:.2f}"]
        rows.append(row)
    columns = ("beside a flood of", "requests", "failed", "p50 ms", "over alone", "p99 ms", "over alone")
    return markdown_table(columns, rows, text=(0,))


def floods(phases: dict[str, Phase]) -> str:
    """What the flooding key was answered."""
    rows = [
        [name, ", ".join(f"{count} x {what}" for what, count in sorted(phase.flood.items()))]
        for name, phase in phases.items()
        if phase.flood
    ]
    return markdown_table(("flood", "answers to it"), rows, text=(0, 1))


def targets(phases: dict[str, Phase]) -> list[report.Target]:
    alone = milliseconds(phases[ALONE], 99)
    ratios = [
        at_most(f"p99 beside {name} over p99 alone", milliseconds(phase, 99) / alone, 2)
        for name, phase in phases.items()
        if name in KINDS
    ]
    errors = sum(
        count for phase in phases.values() for what, count in phase.flood.items() if what.startswith("500")
    )
    return [
        *ratios,
        at_most("failed requests of the steady key", sum(map(failed, phases.values())), 0),
        at_most("answers to the floods with status 500", errors, 0),
    ]


if __name__ == "__main__":
    main()
