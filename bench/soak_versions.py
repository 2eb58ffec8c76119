"""Lets a service live with versions that come and go: `python -m bench.soak_versions`, 40 minutes.

`sds-clip up` serves ViT-B/32 with a worker beside it. Each request for /match asks for one of 200 versions, of which
only a part fits into the memory that the service may use for them, or for an alias that is moved every few seconds.
Each version was loaded once before. Fine-tuning jobs of the demo run one after another. With all this beside, 32
clients first measure the capacity; then requests arrive at random times, at 70 % of it. The resident memory of the
service is read every second. Every text is new, and the cache of texts is filled before, so something else holds what
memory grows by.
"""

import json
import random
import shutil
import threading
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

from bench import report, servers
from bench.load import IMAGE, TEXT, Answer, Call, LoadSpec, OpenSpec, run_load, run_open_load, text_of
from bench.options import cache_option, option, parse
from bench.promote import failures
from bench.report import at_least, at_most, note
from bench.servers import Running, wait_until
from bench.swap_system import find_inputs
from bench.version_set import make_version_set
from sds_clip import Client
from sds_clip.app.serving.engine import TEXT_CACHE_SIZE
from sds_clip.client.schemas import FinetuneOptions
from sds_clip.demo.folders import write_pairs
from sds_clip.demo.sets import pairs
from sds_clip.demo.training_set import DISTILLATION_SEED
from sds_clip.demo.world import Split
from sds_clip.models.delta_file import TENSORS_FILE
from sds_clip.models.markdown import markdown_table

ALIAS = "soak"
TEXTS_AT_ONCE = 64
ENDED = ("succeeded", "failed", "cancelled")
JOB: FinetuneOptions = {
    "base": "demo",
    "objective": "clip",
    "hyperparameters": {"steps": 20, "batch_size": 16, "lr": 1e-5, "warmup_steps": 2},
}


@dataclass(frozen=True)
class Plan:
    """How long it lives, and with how much."""

    model: str = option("", "Base. Without it, ViT-B/32 with random weights is created.", quick="demo")
    precision: str = option("auto", "Precision of the service: auto, float32 or bfloat16.")
    minutes: float = option(40.0, "Number of minutes.", quick=0.2)
    parts: int = option(
        8, "Number of parts of the time, of which the first and the last are compared.", quick=2
    )
    versions: int = option(200, "Number of versions.", quick=8)
    in_memory: int = option(50, "About the number of versions that fit into memory.", quick=3)
    texts: int = option(TEXT_CACHE_SIZE, "Number of texts that are sent first and fill the cache.", quick=64)
    move_every_s: float = option(4.0, "Number of seconds between two moves of the alias.", quick=1.0)
    share: float = option(0.7, "Share of the capacity at which requests arrive.")
    capacity_requests: int = option(400, "Number of requests that measure the capacity.", quick=64)
    cache: Path = cache_option()

    @property
    def folder(self) -> Path:
        return self.cache / "soak-versions"


@dataclass
class Life:
    """What happened beside the requests."""

    resident_mib: list[tuple[float, float]] = field(default_factory=list)
    """The monotonic time and the resident memory of the service, each second."""
    moves: int = 0
    is_training: bool = False
    """Whether a job has begun to run."""
    ended: Counter[str] = field(default_factory=Counter)
    """The number of jobs by how they ended."""


def main(arguments: list[str] | None = None) -> None:
    plan = parse(Plan, "bench.soak_versions", __doc__, arguments)
    heading = report.heading("bench.soak_versions", arguments)
    model, images = find_inputs(plan.model, plan.cache)
    versions = make_version_set(plan.folder, model, plan.versions)
    shutil.rmtree(plan.folder / "state", ignore_errors=True)
    data = plan.folder / "pairs"
    if not data.exists():
        write_pairs(data, pairs(Split.TRAIN, DISTILLATION_SEED, 0, 64))
    size_bytes = (plan.folder / "data" / "versions" / versions[0] / TENSORS_FILE).stat().st_size
    environment = {
        "SDS_CLIP_DATABASE_URL": f"sqlite:///{plan.folder / 'sds-clip.db'}",
        "SDS_CLIP_DATA_DIR": str(plan.folder / "data"),
        "SDS_CLIP_STATE_DIR": str(plan.folder / "state"),
        "SDS_CLIP_MAX_VERSION_BYTES": str(plan.in_memory * size_bytes),
        "SDS_CLIP_ALLOWED_MODELS": "demo",
    }
    server = servers.sds_clip("soak", "up", "--model", model, "--precision", plan.precision)
    with servers.running(server, plan.cache, **environment) as running:
        answers, rate, life = live(plan, running, images, versions, data)
    rows, p99 = [], []
    for part in range(plan.parts):
        since, until = (answers[0].at + 60 * plan.minutes * each / plan.parts for each in (part, part + 1))
        times = [1000 * each.seconds for each in answers if since <= each.at < until]
        resident = [mib for at, mib in life.resident_mib if since <= at < until]
        minutes = f"{plan.minutes * part / plan.parts:g} to {plan.minutes * (part + 1) / plan.parts:g}"
        rows.append(
            [
                minutes,
                len(times),
                *report.percentiles(times, 0),
                f"{min(resident):.0f} to {max(resident):.0f}",
            ]
        )
        p99.append(report.percentile(times, 99))
    warm = [mib for at, mib in life.resident_mib if at >= answers[0].at + 60 * plan.minutes / plan.parts]
    ended = ", ".join(f"{count} x {status}" for status, count in sorted(life.ended.items()))
    report.show(
        f"{heading}\n{report.versions(report.SERVICE)}. {model}; {rate:.1f} requests a second, {plan.share:.0%} of the "
        f"capacity beside all this; {plan.versions} versions, of which about {plan.in_memory} fit into memory.",
        markdown_table(
            ("minutes", "requests", "p50 ms", "p95 ms", "p99 ms", "resident MiB"), rows, text=(0, 5)
        ),
        f"Moves of the alias: {life.moves}. Jobs: {ended}.",
        *failures(answers),
        targets=[
            at_most("failed requests", sum(each.status != "200" for each in answers), 0),
            at_most(
                "largest resident memory over smallest, after the first part", max(warm) / min(warm), 1.05
            ),
            at_most("p99 of the last part over the first", p99[-1] / p99[0], 1.1),
            at_least("jobs that succeeded", life.ended["succeeded"], 1),
        ],
    )


def live(
    plan: Plan, running: Running, images: Sequence[str], versions: Sequence[str], data: Path
) -> tuple[list[Answer], float, Life]:
    """The answers, the rate at which requests arrived, and what happened beside them."""
    life, ending = Life(), threading.Event()
    chance = random.Random(0)
    move(running, versions[0])
    wait_until(lambda: serves(running, versions[0]), "serving the alias")
    named = [chance.choice(versions) if number % 4 else ALIAS for number in range(997)]
    calls = [
        Call("match", "/match", json.dumps({"model": name, "images": [IMAGE], "texts": [TEXT, f"no {TEXT}"]}))
        for name in named
    ]
    note("texts fill the cache")
    for first in range(0, plan.texts, TEXTS_AT_ONCE):
        texts = [text_of(2 * 10**6 + first + number) for number in range(TEXTS_AT_ONCE)]
        running.post("/embed", json.dumps({"texts": texts})).raise_for_status()
    note("each version is asked for once, so that its golden embeddings are checked")
    for version in versions:
        body = json.dumps({"model": version, "images": [IMAGE], "texts": [TEXT]})
        running.post("/match", Call("match", "/match", body).filled(images[0])).raise_for_status()
    with ThreadPoolExecutor(3) as threads:
        beside = [
            threads.submit(watch, running, life, ending),
            threads.submit(keep_moving, plan, running, versions, life, ending),
            threads.submit(keep_training, running, data, life, ending),
        ]
        try:
            wait_until(lambda: life.is_training, "training")
            note("capacity, in a closed loop")
            spec = LoadSpec(running.port, numbered(calls), list(images), 32, 64, plan.capacity_requests)
            rate = plan.share * run_load(spec).requests_per_second
            note(f"now {rate:.1f} requests a second for {plan.minutes:g} minutes")
            answers = run_open_load(OpenSpec(running.port, calls, list(images), rate, 60 * plan.minutes))
        finally:
            ending.set()
        for each in beside:
            each.result()
    return answers, rate, life


def numbered(calls: Sequence[Call]) -> list[Call]:
    """The calls with texts of their own, as the open load has them."""
    return [
        replace(call, body=call.body.replace(TEXT, text_of(10**6 + number)))
        for number, call in enumerate(calls)
    ]


def serves(running: Running, version: str) -> bool:
    models = running.get("/models/status")["processes"][0]["models"]
    return any((model["name"], model["version"]) == (ALIAS, version) for model in models)


def watch(running: Running, life: Life, ending: threading.Event) -> None:
    service = next(
        pid
        for pid in servers.descendants(running.pid)
        if b"\0serve\0" in Path(f"/proc/{pid}/cmdline").read_bytes()
    )
    while not ending.wait(1.0):
        life.resident_mib.append((time.monotonic(), servers.resident_bytes_of(service) / 2**20))


def keep_moving(
    plan: Plan, running: Running, versions: Sequence[str], life: Life, ending: threading.Event
) -> None:
    chance = random.Random(1)
    while not ending.wait(plan.move_every_s):
        move(running, chance.choice(versions))
        life.moves += 1


def move(running: Running, version: str) -> None:
    answer = running.post(
        f"/models/{version}/promote", json.dumps({"alias": ALIAS, "reason": "the soak", "force": True})
    )
    answer.raise_for_status()


def keep_training(running: Running, data: Path, life: Life, ending: threading.Event) -> None:
    with Client(running.url) as client:
        dataset = client.upload_dataset(data, format="pairs")["id"]
        while not ending.is_set():
            job = client.finetune(dataset, **JOB)  # it waits until the data are checked
            while job.refresh().info["status"] not in ENDED:
                life.is_training |= job.info["status"] == "running"
                if ending.wait(0.5):
                    job.cancel()
                    return
            life.ended[job.info["status"]] += 1


if __name__ == "__main__":
    main()
