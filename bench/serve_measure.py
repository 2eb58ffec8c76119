"""The serving benchmark's measurements: the plan, and each system's part of a round."""

import json
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np
import open_clip

from bench import embedders, servers, weights
from bench.bare import BareResult, BareSpec, run_bare
from bench.embedders import Embedder
from bench.load import IMAGE, Call, LoadResult, LoadSpec, run_load
from bench.options import cache_option, option
from bench.report import note
from bench.sets import WIDTH, make_images

CLIENTS = 32
BATCH_SIZE = 32
INFINITY, LITSERVE = "infinity", "litserve"
PRECISIONS = ("auto", "float32")


@dataclass(frozen=True)
class Plan:
    """How much is measured."""

    skip_peers: bool = option(False, "Measure only this service and its bare path.")
    before: Path | None = option(None, "Another checkout, whose service is measured too.", kind=Path)
    rounds: int = option(3, "Number of rounds in which the systems take turns.", quick=1)
    requests: int = option(384, "Number of requests at 32 clients in a round.", quick=96)
    idle_requests: int = option(40, "Number of requests of one idle client in a round.", quick=12)
    memory_requests: int = option(2000, "Number of requests between the readings of memory.", quick=256)
    width: int = option(WIDTH, "Width of the pictures, which are 4:3.")
    cache: Path = cache_option()

    @property
    def warmup(self) -> int:
        return 2 * CLIENTS


@dataclass(frozen=True)
class Inputs:
    """Inputs of every system, and open_clip's own float32 embeddings of the images by file name."""

    folder: Path
    images: list[str]
    reference: dict[str, np.ndarray]


@dataclass(frozen=True)
class Round:
    """One system's part of a round; `bare` is the bare path at the same precision, for this service only."""

    bare: BareResult | None
    load: LoadResult
    idle: LoadResult
    resident_mib: float
    min_cosine: float
    loop_ms: float
    """CPU time of the server's main thread for a request. In this service that is all of HTTP and validation."""

    @property
    def idle_ms(self) -> list[float]:
        return self.idle.latencies_ms["embed"]


@dataclass(frozen=True)
class Extras:
    """One idle client's latencies by endpoint, and resident memory around a long load."""

    latencies_ms: dict[str, list[float]]
    first_classify_s: float
    resident_before_mib: float
    resident_after_mib: float
    precision: str

    def over_embed(self, call: str) -> float:
        """The ratio of median latencies."""
        return median(self.latencies_ms[call]) / median(self.latencies_ms["embed"])


def prepare(plan: Plan) -> Inputs:
    """Create weights, images and reference embeddings; for peers also their environments and weights."""
    folder = weights.make_open_clip(plan.cache / weights.ARCHITECTURE)
    folder_of_images = plan.cache / ("images" if plan.width == WIDTH else f"images-{plan.width}")
    paths = make_images(folder_of_images, plan.requests + plan.warmup, plan.width)
    sample = paths[plan.warmup : plan.warmup + 64]
    features = weights.open_clip_features(folder, sample)
    if not plan.skip_peers:
        embedders.install(plan.cache / "venv-infinity", embedders.INFINITY_REQUIREMENTS)
        embedders.install(plan.cache / "venv-litserve", embedders.LITSERVE_REQUIREMENTS)
        weights.make_huggingface(folder, plan.cache / f"{weights.ARCHITECTURE}-hf")
    reference = {path.name: row for path, row in zip(sample, features, strict=True)}
    return Inputs(folder, [str(path) for path in paths], reference)


def contestants(plan: Plan, inputs: Inputs) -> dict[str, Embedder]:
    systems = {key: embedders.ours(f"local-dir:{inputs.folder}", "cpu", key) for key in PRECISIONS}
    if plan.before:
        systems |= {
            f"before {key}": embedders.ours(f"local-dir:{inputs.folder}", "cpu", key, checkout=plan.before)
            for key in PRECISIONS
        }
    if plan.skip_peers:
        return systems
    copy, environment = plan.cache / f"{weights.ARCHITECTURE}-hf", plan.cache / "venv-litserve"
    return {
        **{key: system for key, system in systems.items() if key != "float32"},
        INFINITY: embedders.infinity(copy, plan.cache / "venv-infinity"),
        LITSERVE: embedders.litserve(inputs.folder, environment, "fp32"),
        "float32": systems["float32"],
        f"{LITSERVE}-bf16": embedders.litserve(inputs.folder, environment, "bf16"),
    }


def measure(plan: Plan, inputs: Inputs, key: str, system: Embedder) -> Round:
    """Start a server, load it, then use it from one client, and check its answers."""
    bare = measure_bare(plan, inputs, key) if key in PRECISIONS else None
    with servers.running(system.server, plan.cache) as process:
        began_s = process.loop_seconds()
        loaded = run_load(
            LoadSpec(
                port=process.port,
                calls=[system.embed],
                images=inputs.images,
                clients=CLIENTS,
                warmup=plan.warmup,
                requests=plan.requests,
                keep=len(inputs.reference),
            )
        )
        loop_ms = (process.loop_seconds() - began_s) * 1000 / (plan.warmup + plan.requests)
        idle = run_load(LoadSpec(process.port, [system.embed], inputs.images, 1, 5, plan.idle_requests))
        resident_mib = process.resident_bytes() / 2**20
    return Round(bare, loaded, idle, resident_mib, min_cosine(system, loaded, inputs.reference), loop_ms)


def measure_bare(plan: Plan, inputs: Inputs, precision: str) -> BareResult:
    """Measure the bare path at a precision, each way over half as many images as the server gets."""
    spec = BareSpec(
        reference=f"local-dir:{inputs.folder}",
        device="cpu",
        precision=precision,
        images=inputs.images[-plan.requests // 2 :],
        batch_size=BATCH_SIZE,
        singles=plan.idle_requests,
        threads=servers.THREADS,
    )
    return run_bare(spec, servers.environment_variables(plan.cache))


def min_cosine(system: Embedder, loaded: LoadResult, reference: dict[str, np.ndarray]) -> float:
    """The lowest cosine between an answered embedding and open_clip's for the same image."""
    cosines = [
        float(system.embedding(answer) @ reference[name])
        for name, answer in loaded.answers.items()
        if name in reference
    ]
    if not cosines:
        raise RuntimeError(f"{system.name}: no answer could be checked")
    if min(cosines) < 0.999:
        raise RuntimeError(f"{system.name} does not compute the same model: a cosine is {min(cosines)}")
    return min(cosines)


def measure_extras(plan: Plan, inputs: Inputs, system: Embedder) -> Extras:
    """Compare endpoints for one idle client, and memory around `memory_requests` requests."""
    labels = open_clip.IMAGENET_CLASSNAMES
    classify = {"images": [IMAGE], "labels": labels, "templates": ["a photo of a {}."], "top_k": 5}
    texts = [f"a photo of {count} dogs" for count in ("one", "two", "three", "four")]
    calls = [
        system.embed,
        Call("classify", "/classify", json.dumps(classify)),
        Call("match", "/match", json.dumps({"images": [IMAGE], "texts": texts})),
        Call("openai", "/v1/embeddings", json.dumps({"model": "default", "input": IMAGE})),
    ]
    # Label sets are cached on disk, but the first request must pay for this one.
    shutil.rmtree(plan.cache / "data", ignore_errors=True)
    with servers.running(system.server, plan.cache) as process:

        def load(number: int) -> float:
            """Resident MiB after so many requests."""
            run_load(LoadSpec(process.port, [system.embed], inputs.images, CLIENTS, 0, number))
            return process.resident_bytes() / 2**20

        before = load(8 * CLIENTS)
        note(f"memory: {before:.0f} MiB after {8 * CLIENTS} requests")
        after = load(plan.memory_requests)
        first_classify_s = build_classes(process, calls[1], inputs.images[0])
        mixed = run_load(
            LoadSpec(process.port, calls, inputs.images, 1, 2 * len(calls), plan.idle_requests * len(calls))
        )
        precision = process.get("/models")["models"][0]["precision"]
    return Extras(mixed.latencies_ms, first_classify_s, before, after, precision)


def build_classes(process: servers.Running, call: Call, image: str) -> float:
    """Ask until the label set is encoded; returns the seconds it took."""
    body = call.filled(image)

    def is_built() -> bool:
        answer = process.post(call.path, body)
        if answer.status_code not in (200, 503):
            raise RuntimeError(f"{call.path} answered {answer.status_code}: {answer.text}")
        return answer.status_code == 200

    start = time.monotonic()
    servers.wait_until(is_built, f"{call.path} answered", timeout_s=900, every_s=1)
    return time.monotonic() - start
