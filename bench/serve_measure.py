"""The serving benchmark's measurements: the plan, and each system's part of a round."""

import json
import shutil
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import open_clip

from bench import servers, weights
from bench.bare import BareResult, BareSpec, run_bare
from bench.load import IMAGE, Call, LoadResult, LoadSpec, run_load
from bench.report import note
from bench.sets import make_images

CLIENTS = 32
BATCH_SIZE = 32
INFINITY, LITSERVE = "infinity", "litserve"
PRECISIONS = ("auto", "float32")


@dataclass(frozen=True)
class Plan:
    """How much is measured."""

    rounds: int
    requests: int
    idle_requests: int
    memory_requests: int
    peers: bool
    cache: Path

    @property
    def warmup(self) -> int:
        return 2 * CLIENTS


@dataclass(frozen=True)
class Inputs:
    """Inputs of every system, and open_clip's own float32 embeddings of the images by file name."""

    folder: Path
    images: list[str]
    reference: dict[str, np.ndarray]


@dataclass
class Measured:
    """One server's measurements over all rounds."""

    name: str
    loads: list[LoadResult] = field(default_factory=list)
    idles: list[LoadResult] = field(default_factory=list)
    min_cosine: float = 1.0
    resident_mib: float = 0.0


@dataclass(frozen=True)
class Extras:
    """One idle client's latencies by endpoint, and resident memory around a long load."""

    latencies_ms: dict[str, list[float]]
    first_classify_s: float
    resident_before_mib: float
    resident_after_mib: float
    precision: str


def prepare(plan: Plan) -> Inputs:
    """Create weights, images and reference embeddings; for peers also their environments and weights."""
    folder = weights.make_open_clip(plan.cache / weights.ARCHITECTURE)
    paths = make_images(plan.cache / "images", plan.requests + plan.warmup)
    sample = paths[plan.warmup : plan.warmup + 64]
    features = weights.open_clip_features(folder, sample)
    if plan.peers:
        servers.install(plan.cache / "venv-infinity", servers.INFINITY_REQUIREMENTS)
        servers.install(plan.cache / "venv-litserve", servers.LITSERVE_REQUIREMENTS)
        weights.make_huggingface(folder, plan.cache / f"{weights.ARCHITECTURE}-hf")
    reference = {path.name: row for path, row in zip(sample, features, strict=True)}
    return Inputs(folder, [str(path) for path in paths], reference)


def contestants(plan: Plan, inputs: Inputs) -> dict[str, servers.Server]:
    systems = {"auto": servers.ours(f"local-dir:{inputs.folder}", "auto")}
    if plan.peers:
        copy = plan.cache / f"{weights.ARCHITECTURE}-hf"
        systems[INFINITY] = servers.infinity(copy, plan.cache / "venv-infinity")
        systems[LITSERVE] = servers.litserve(inputs.folder, plan.cache / "venv-litserve", "fp32")
    systems["float32"] = servers.ours(f"local-dir:{inputs.folder}", "float32")
    if plan.peers:
        systems[f"{LITSERVE}-bf16"] = servers.litserve(inputs.folder, plan.cache / "venv-litserve", "bf16")
    return systems


def measure_bare(plan: Plan, inputs: Inputs, precision: str) -> BareResult:
    """Measure the bare path at a precision, each way over half as many images as the server gets."""
    spec = BareSpec(
        reference=f"local-dir:{inputs.folder}",
        precision=precision,
        images=inputs.images[-plan.requests // 2 :],
        batch_size=BATCH_SIZE,
        singles=plan.idle_requests,
        threads=servers.THREADS,
    )
    return run_bare(spec, servers.environment_variables(plan.cache))


def measure_server(plan: Plan, inputs: Inputs, server: servers.Server, measured: Measured) -> None:
    """Start a server, load it, then use it from one client, and check its answers."""
    with servers.running(server, plan.cache) as process:
        loaded = run_load(
            LoadSpec(
                port=process.port,
                calls=[server.embed],
                images=inputs.images,
                clients=CLIENTS,
                warmup=plan.warmup,
                requests=plan.requests,
                keep=len(inputs.reference),
            )
        )
        idle = run_load(LoadSpec(process.port, [server.embed], inputs.images, 1, 5, plan.idle_requests))
        measured.resident_mib = max(measured.resident_mib, process.resident_bytes() / 2**20)
    measured.loads.append(loaded)
    measured.idles.append(idle)
    measured.min_cosine = min(measured.min_cosine, min_cosine(server, loaded, inputs.reference))


def min_cosine(server: servers.Server, loaded: LoadResult, reference: dict[str, np.ndarray]) -> float:
    """The lowest cosine between an answered embedding and open_clip's for the same image."""
    cosines = []
    for name, answer in loaded.answers.items():
        if name in reference:
            vector = server.vector(json.loads(answer))
            cosines.append(float(vector @ reference[name] / np.linalg.norm(vector)))
    if not cosines:
        raise RuntimeError(f"{server.name}: no answer could be checked")
    if min(cosines) < 0.999:
        raise RuntimeError(f"{server.name} does not compute the same model: a cosine is {min(cosines)}")
    return min(cosines)


def measure_extras(plan: Plan, inputs: Inputs, server: servers.Server) -> Extras:
    """Compare endpoints for one idle client, and memory around `memory_requests` requests."""
    labels = open_clip.IMAGENET_CLASSNAMES
    classify = {"images": [IMAGE], "labels": labels, "templates": ["a photo of a {}."], "top_k": 5}
    match = {
        "images": [IMAGE],
        "texts": [f"a photo of {count} dogs" for count in ("one", "two", "three", "four")],
    }
    calls = [
        server.embed,
        Call("classify", "/classify", json.dumps(classify)),
        Call("match", "/match", json.dumps(match)),
    ]
    # Label sets are cached on disk, but the first request must pay for this one.
    shutil.rmtree(plan.cache / "data", ignore_errors=True)
    with servers.running(server, plan.cache) as process:
        settle = run_load(LoadSpec(process.port, [server.embed], inputs.images, CLIENTS, 0, 8 * CLIENTS))
        before = process.resident_bytes() / 2**20
        note(f"memory: {before:.0f} MiB after {sum(settle.statuses.values())} requests")
        run_load(LoadSpec(process.port, [server.embed], inputs.images, CLIENTS, 0, plan.memory_requests))
        after = process.resident_bytes() / 2**20
        first_classify_s = build_classes(process.port, calls[1], Path(inputs.images[0]))
        mixed = run_load(
            LoadSpec(process.port, calls, inputs.images, 1, 2 * len(calls), plan.idle_requests * len(calls))
        )
        precision = servers.get(process.port, "/models")["models"][0]["precision"]
    return Extras(mixed.latencies_ms, first_classify_s, before, after, precision)


def build_classes(port: int, call: Call, image: Path, timeout_s: float = 900.0) -> float:
    """Ask until the label set is encoded; returns the seconds it took."""
    body = call.filled(image)
    start = time.monotonic()
    while time.monotonic() < start + timeout_s:
        status, answer = servers.post(port, call.path, body)
        if status == 200:
            return time.monotonic() - start
        if status != 503:
            raise RuntimeError(f"{call.path} answered {status}: {answer}")
        time.sleep(1)
    raise RuntimeError(f"{call.path} was not ready in {timeout_s:.0f} s")
