"""The measured parts of `python -m bench.gpu`. Each prints a table.

serving   requests a second by the number of clients, beside the bare path
scoring   the diffusion score, in batches and one by one
memory    a training step's peak beside the estimate of `sds-clip compare --dry-run`
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path

import httpx
import torch

from bench import embedders, servers, weights
from bench.bare import BareSpec, run_bare
from bench.diffusion import time_diffusion
from bench.flops import student_cost, text_encoder_cost, unet_cost
from bench.load import LoadSpec, run_load
from bench.memory import measure_memory
from bench.options import cache_option, option, parse
from bench.report import note, percentiles, shown_ratio
from bench.sets import demo_set, make_images
from bench.train_parts import CLIP, FULL, SDS, UNETS, Shapes, student_config
from sds_clip.models.clip.precision import choose_device, choose_precision
from sds_clip.models.markdown import markdown_table
from sds_clip.models.teacher.load import load_teacher
from sds_clip.models.training.cost import FLOAT32, peak_bytes

BATCH_SIZE = 32  # the service's default
# How far scores may differ that were computed in batches of other sizes.
TOLERANCE = {"float32": 1e-4, "float16": 0.02, "bfloat16": 0.1}
ALLOCATED = re.compile(r'^sds_clip_device_memory_bytes\{.*state="allocated".*\} (\S+)$', re.MULTILINE)


@dataclass(frozen=True)
class Plan:
    """What a part measures, and how much."""

    part: str = option("serving", "The part.", choices=("serving", "scoring", "memory"))
    device: str = option("cuda", "Device: cuda, cuda:N or cpu.")
    model: Path | None = option(
        None, "Folder of an open_clip model to serve. Without it, a random ViT-B-32 is created.", kind=Path
    )
    clients: Sequence[int] = option(
        (1, 8, 32, 128, 256), "Numbers of clients.", quick=(1, 4), kind=int, nargs="+"
    )
    requests: int = option(512, "Least number of requests at each number of clients.", quick=16)
    scored: int = option(16, "Number of items that the teacher scores.", quick=1)
    draws: int = option(32, "Number of noise levels of the diffusion score.", quick=2)
    student: str = option("ViT-B-32", "Name of an open_clip ViT, or tiny.", quick="tiny")
    unet: str = option("sd15", "Shape of the U-Net.", quick="tiny", choices=UNETS)
    batch_size: int = option(64, "Number of images and captions of a step.", quick=8)
    sds_batch_size: int = option(8, "Number of samples of a batch that the teacher sees.", quick=4)
    cache: Path = cache_option()

    @property
    def precisions(self) -> tuple[str, ...]:
        return ("float32",) if choose_device(self.device).type == "cpu" else tuple(TOLERANCE)


def serving(plan: Plan) -> str:
    reference = f"local-dir:{plan.model or weights.make_open_clip(plan.cache / weights.ARCHITECTURE)}"
    images = [str(path) for path in make_images(plan.cache / "images", plan.requests)]
    rows: list[list[object]] = []
    for precision in plan.precisions:
        note(f"bare path, {precision}")
        spec = BareSpec(reference, plan.device, precision, images, BATCH_SIZE, 40, servers.THREADS)
        bare = run_bare(spec, servers.environment_variables(plan.cache))
        rate = bare.images_per_second
        rows.append(
            [f"bare path, {precision}", "", f"{rate:.1f}", *percentiles(bare.single_ms, 1), "", "", ""]
        )
        system = embedders.ours(reference, plan.device, precision)
        with servers.running(system.server, plan.cache) as process:
            weights_mib = process.get("/models")["models"][0]["size_bytes"] / 2**20
            for clients in plan.clients:
                note(f"{system.name}, {clients} clients")
                count = max(plan.requests, 4 * clients)
                load = run_load(LoadSpec(process.port, [system.embed], images, clients, 2 * clients, count))
                told = ALLOCATED.findall(httpx.get(f"{process.url}/metrics", verify=False).text)
                allocated = ", ".join(f"{float(size) / 2**20:.0f}" for size in told)
                figures = (f"{load.requests_per_second:.1f}", *percentiles(load.latencies_ms["embed"], 1))
                of_bare = f"{load.requests_per_second / rate:.2f}"
                rows.append([system.name, clients, *figures, of_bare, allocated, f"{weights_mib:.0f}"])
    header = (
        "system", "clients", "a second", "p50 ms", "p95 ms", "p99 ms", "of bare", "allocated MiB", "weights MiB",
    )  # fmt: skip
    return (
        f"Requests for the embedding of a 640x480 JPEG, at least {plan.requests} at each number of clients; "
        f"{servers.THREADS} threads. The bare path takes batches of {BATCH_SIZE}; its latencies are of single images. "
        f"What is allocated is said by the service's metrics of its GPU.\n\n{markdown_table(header, rows, text=(0,))}"
    )


def scoring(plan: Plan) -> str:
    torch.backends.cudnn.allow_tf32 = False  # float32 is then compared as such
    folder = demo_set(plan.cache / f"demo-{plan.scored}", plan.scored)
    rows: list[list[object]] = []
    for precision in plan.precisions:
        teacher = load_teacher("demo", device=plan.device, precision=precision, vae=True)
        found = time_diffusion(teacher, folder, plan.draws, 2, atol=TOLERANCE[precision])
        rate = found.pairs / min(found.batched_s)
        rows.append([precision, f"{rate:.2f}", shown_ratio(found.naive_s, found.batched_s)])
    header = (f"demo teacher, {plan.draws} draws", "pairs/s", "throughput / one by one")
    return markdown_table(header, rows)


def memory(plan: Plan) -> str:
    precision = choose_precision("auto", choose_device(plan.device))
    shapes = Shapes(
        plan.student, plan.unet, plan.device, precision, plan.batch_size, plan.sds_batch_size, score_draws=2
    )
    rows: list[list[object]] = []
    for variant in (CLIP, SDS, FULL):
        note(f"memory: {variant}")
        found, estimated = measure_memory(shapes, variant, plan.cache), estimate_mib(shapes, variant)
        sizes = (estimated, found.before_mib, found.step_mib, found.before_mib + found.step_mib)
        rows.append([variant, *(f"{size:.0f}" for size in sizes), f"{sizes[-1] / estimated:.2f}"])
    header = ("objective", "estimate MiB", "held before", "step's peak", "together", "together / estimate")
    return (
        f"{plan.student} with trained LayerNorms and a batch of {plan.batch_size}, of which the teacher ({plan.unet}, "
        f"{precision}) sees {plan.sds_batch_size}. The teacher is held without being used, too. On a CPU, the program "
        f"and its libraries count.\n\n{markdown_table(header, rows)}"
    )


def estimate_mib(shapes: Shapes, variant: str) -> float:
    """The dry run's estimate without its 3 GiB for CUDA, and without the base that a run holds beside the student."""
    student = student_cost(shapes.student)
    side, width = UNETS[shapes.unet]["sample_size"], student_config(shapes.student)["embed_dim"]
    found = peak_bytes(
        shapes.config(variant),
        student,
        unet_cost(shapes.unet),
        trained=0,  # of LayerNorms, too few to count
        other_bytes=FLOAT32 * text_encoder_cost(shapes.unet).parameters,
        mapper=(width + 1) * prod((4, side, side)),
    )
    return (found - FLOAT32 * student.parameters) / 2**20


def main(arguments: list[str] | None = None) -> None:
    plan = parse(Plan, "bench.gpu_parts", __doc__, arguments)
    print({"serving": serving, "scoring": scoring, "memory": memory}[plan.part](plan))


if __name__ == "__main__":
    main()
