"""What `sds-clip compare` would take: time by device, memory and disk, counted and not measured; and its power."""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from sds_clip.models.checkpoints.load import load_clip
from sds_clip.models.clip.precision import DTYPES, choose_device
from sds_clip.models.data.open import open_pairs
from sds_clip.models.evaluation.winoground import HUB_ID
from sds_clip.models.machine import usable_bytes, usable_cores
from sds_clip.models.recipes.power import describe_power
from sds_clip.models.teacher.folder import find_family, find_folder, read_json
from sds_clip.models.training.cost import (
    Cost,
    bytes_beside,
    clip_costs,
    denoiser_cost,
    mapper_parameters,
    peak_bytes,
    score_operations,
    step_operations,
    vae_cost,
)
from sds_clip.table import size_text, table

if TYPE_CHECKING:
    from sds_clip.models.clip.model import Clip
    from sds_clip.models.evaluation.benchmark import Benchmark
    from sds_clip.models.recipes.plan import Plan
    from sds_clip.models.recipes.train import Trained
    from sds_clip.models.training.config import FinetuneConfig

STEP_OVERHEAD = 1.15  # a step's time over that of its parts; `python -m bench.train` asks for 1.10
_DECODED_PER_S = 178  # images, on each core; docs/benchmarks.md
_OF_RESULTS = 700  # bytes of an item in results.json
_OF_REPORT = 2**20  # bytes
_OF_CUDA = 3 * 2**30  # bytes of its context, its workspaces and fragmentation
_MEASURED_S = 0.5


@dataclass(frozen=True)
class _Device:
    """A device and its sustained floating-point operations per second, in training and in float32."""

    name: str
    training: float
    evaluation: float
    cores: int


# A third of the peaks that NVIDIA states for dense bfloat16 products and for float32.
_GPUS = (
    ("H100", 989e12 / 3, 67e12 / 3),
    ("A100", 312e12 / 3, 19.5e12 / 3),
    ("RTX 4090", 165e12 / 3, 82.6e12 / 3),
    ("RTX 3090", 71e12 / 3, 35.6e12 / 3),
)


def estimate(trained: Trained, benchmarks: Sequence[Benchmark]) -> str:
    """Return the text of a dry run. The teacher's networks are made without weights."""
    plan, device = trained.arms.plan, trained.rank.device
    configs = {recipe: trained.config(recipe, plan.seeds[0]) for recipe in plan.recipes}
    base = load_clip(plan.base, device="cpu", precision="float32")
    needs = {recipe: needs_of(config, base) for recipe, config in configs.items()}
    any_run = configs[plan.control]
    pairs = len(open_pairs(plan.data, images=plan.images))
    images = len({region for each in benchmarks for item in each.items for region in item.images})
    captions = len({text for each in benchmarks for item in each.items for text in item.captions})
    counts = {each.name: len(each.items) for each in benchmarks}
    items = sum(counts.values())
    models = len(trained.arms.models)
    _, image, caption, _ = clip_costs(base, any_run)
    evaluation = images * image.forward + captions * caption.forward

    def times_s(of: _Device) -> list[float]:
        """Seconds of the evaluation of all models, and of each recipe with all seeds."""
        decoded_per_s = _DECODED_PER_S * of.cores
        looked_s = (pairs + models * images) / decoded_per_s  # the training data are checked once
        each_s = []
        for recipe, config in configs.items():
            step_s = max(config.batch_size / decoded_per_s, STEP_OVERHEAD * needs[recipe].step / of.training)
            started_s = needs[recipe].start * min(needs[recipe].start_images, pairs) / of.evaluation
            each_s.append(len(plan.seeds) * (config.steps_over(pairs) * step_s + started_s))
        return [looked_s + models * evaluation / of.evaluation, *each_s]

    dtype = DTYPES[any_run.teacher_precision]
    this = _this(device, dtype, min(any_run.workers, usable_cores()))
    devices = [this, *(_Device(*each, cores=any_run.workers) for each in _GPUS)]
    rows = [[of.name, *map(_time, times_s(of)), _time(sum(times_s(of)))] for of in devices]
    largest = max(needs, key=lambda recipe: needs[recipe].peak)
    disk = {
        "caption embeddings": max(each.caption_bytes for each in needs.values()) * _captions(any_run),
        "features": models * (images + captions) * 4 * base.embed_dim,
        "checkpoints": sum(
            len(plan.seeds) * configs[recipe].keep_checkpoints * 12 * each.trained
            for recipe, each in needs.items()
        ),
        "results and reports": models * (items * _OF_RESULTS + len(benchmarks) * _OF_REPORT),
    }
    out = trained.arms.out
    free = shutil.disk_usage(next(each for each in (out, *out.parents) if each.exists())).free
    return "\n".join(
        [
            f"These are estimates, not measurements, for {len(plan.recipes)} recipes of "
            f"{any_run.steps_over(pairs)} steps with the seeds {', '.join(map(str, plan.seeds))}, and for {models} "
            f"models on {len(benchmarks)} benchmarks ({images} images, {captions} captions).{_not_counted(plan)}",
            "",
            table(["device", "evaluation", *plan.recipes, "together"], rows),
            "",
            "Time: a step is "
            + ", ".join(f"{each.step / 1e12:.3g} TFLOP for {recipe}" for recipe, each in needs.items())
            + ", counted without computing. For "
            f"{this.name}, {this.training / 1e12:.3g} TFLOP/s are assumed, by the rate at which it multiplied matrices"
            f" now; for the other devices, a third of their peak. Each core is assumed to decode {_DECODED_PER_S} "
            f"images per second (cores here: {this.cores}, elsewhere: {any_run.workers}).",
            _memory(needs[largest].peak, largest, device),
            f"Disk: {size_text(sum(disk.values()))} in {out}: "
            + ", ".join(f"{what} {size_text(size)}" for what, size in disk.items())
            + f". {size_text(free)} are free there.{' That is too little.' if free < sum(disk.values()) else ''}",
            *describe_power(plan, counts),
            f"Nothing was written to {out}.",
        ]
    )


@dataclass(frozen=True)
class Needs:
    """What a run of a recipe takes."""

    step: float
    """Floating-point operations of a step."""
    start: float
    """Those of what is computed once for an image: its latents, for the mapper's start or the loss, and scores."""
    start_images: int
    peak: float
    """Bytes of memory."""
    trained: int
    """Numbers that are trained."""
    caption_bytes: int
    """Bytes of a caption's embedding."""


def needs_of(config: FinetuneConfig, base: Clip) -> Needs:
    """Count what a run takes. The base has its weights; the teacher's networks are made without."""
    pair, image, caption, trained = clip_costs(base, config)
    negatives = config.negatives_count if config.uses_negatives else 0
    # A backward takes twice as long as its forward.
    of_negatives = 3.0 * config.batch_size * negatives * caption.forward
    alone = config.model_copy(update={"objective": "clip"})
    if not config.uses_teacher:
        nothing = Cost("no teacher", 0, 0)
        peak = peak_bytes(alone, pair, nothing, trained=trained, other_bytes=0, mapper=0)
        return Needs(step_operations(alone, pair, nothing) + of_negatives, 0.0, 0, peak, trained, 0)
    assert config.teacher is not None
    name, folder = find_folder(config.teacher, vae=False)
    family = find_family(folder, name)
    denoiser, mapper = denoiser_cost(folder, family), mapper_parameters(base, folder, family)
    dtype = DTYPES[config.teacher_precision]
    vae = vae_cost(folder, family) if config.needs_vae else None
    waits = config.teacher_offload and choose_device(config.device).type != "cpu"
    beside = 0 if waits else bytes_beside(folder, family, dtype, vae)
    peak = peak_bytes(config, pair, denoiser, trained=trained, other_bytes=beside, mapper=mapper)
    start = 0.0 if vae is None else float(image.forward + vae.forward)
    if config.objective == "score":
        start += score_operations(config, denoiser)
    seen = (config.steps or 10**9) * config.teacher_batch_size
    width = family.tokens * family.caption_width(read_json(folder / family.denoiser / "config.json"))
    return Needs(
        step_operations(alone if config.objective == "score" else config, pair, denoiser) + of_negatives,
        start,
        config.ridge_images if config.uses_sds else seen,
        peak,
        2 * trained + mapper,
        width * dtype.itemsize if config.uses_sds else 0,
    )


def _not_counted(plan: Plan) -> str:
    of_hub = [name for name, each in plan.benchmarks.items() if each.data == HUB_ID]
    return f" From the hub, {', '.join(of_hub)} is neither checked nor counted." if of_hub else ""


def _memory(peak: float, recipe: str, device: torch.device) -> str:
    if device.type == "cuda":
        has = torch.cuda.get_device_properties(device).total_memory
        peak += _OF_CUDA
        rest = ", which include 3 GiB for CUDA"
    else:
        has, rest = usable_bytes(), " beside the program itself"
    said = f"Memory: {size_text(peak)} at the peak of {recipe}{rest}. This device has {size_text(has)}."
    if peak < has:
        return said
    remedy = (
        "Lower sds_batch_size or micro_batch_size, or set activation_checkpointing, in the plan's options."
    )
    return f"{said} That is too little. {remedy}"


def _this(device: torch.device, of_training: torch.dtype, cores: int) -> _Device:
    name = "this CPU" if device.type == "cpu" else f"this {torch.cuda.get_device_name(device)}"
    return _Device(name, sustained_rate(device, of_training), sustained_rate(device, torch.float32), cores)


def sustained_rate(device: torch.device, dtype: torch.dtype) -> float:
    """Measure the operations per second of square matrix products, and return the part that networks reach.

    On a CPU in float32 this is all of it, as `python -m bench.rehearse` shows; elsewhere half is assumed.
    """
    reached = 1.0 if device.type == "cpu" and dtype is torch.float32 else 0.5
    return reached * _matrix_rate(device, dtype)


def _matrix_rate(device: torch.device, dtype: torch.dtype) -> float:
    side = 8192 if device.type == "cuda" else 1024
    one = torch.ones(side, side, device=device, dtype=dtype)
    (one @ one).sum().item()  # the first one is slower; item() waits for a GPU
    count, began = 0, time.monotonic()
    while time.monotonic() - began < _MEASURED_S:
        for _ in range(4):
            product = one @ one
        product[0, 0].item()
        count += 4
    return 2 * side**3 * count / (time.monotonic() - began)


def _captions(config: FinetuneConfig) -> int:
    pairs = open_pairs(config.data, images=config.images)
    return sum(len(pairs.sample(index).captions) for index in range(len(pairs)))


def _time(seconds: float) -> str:
    """Two units at most: `3 h 20 min`."""
    minutes = round(seconds / 60)
    if minutes < 1:
        return "under 1 min"
    days, hours, minutes = minutes // 1440, minutes // 60 % 24, minutes % 60
    if days:
        return f"{days} d {hours} h"
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"
