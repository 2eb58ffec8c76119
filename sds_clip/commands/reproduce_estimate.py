"""What `sds-clip reproduce` would take: time by device, memory and disk, counted and not measured."""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from sds_clip.models.clip.precision import DTYPES
from sds_clip.models.data.open import open_pairs
from sds_clip.models.evaluation.winoground import HUB_ID
from sds_clip.models.machine import usable_bytes, usable_cores
from sds_clip.models.teacher.folder import find_family, find_folder, read_json
from sds_clip.models.training.cost import (
    bytes_beside,
    clip_costs,
    denoiser_cost,
    mapper_parameters,
    peak_bytes,
    step_operations,
    vae_cost,
)
from sds_clip.table import size_text, table

if TYPE_CHECKING:
    from sds_clip.models.clip.model import Clip
    from sds_clip.models.evaluation.benchmark import Benchmark
    from sds_clip.models.reproduction import Reproduction

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


def estimate(work: Reproduction, base: Clip, benchmarks: Sequence[Benchmark], device: torch.device) -> str:
    """Return the text of a dry run. The teacher's networks are made without weights."""
    config = work.config
    assert config.teacher is not None
    pair, image, caption, trained = clip_costs(base, config)
    name, folder = find_folder(config.teacher, vae=False)
    family = find_family(folder, name)
    denoiser = denoiser_cost(folder, family)
    shape = read_json(folder / family.denoiser / "config.json")
    mapper = mapper_parameters(base, folder, family)
    of_format = DTYPES[config.teacher_precision]

    pairs = len(open_pairs(config.data, images=config.images))
    steps = config.steps_over(pairs)
    images = len({region for each in benchmarks for item in each.items for region in item.images})
    captions = len({text for each in benchmarks for item in each.items for text in item.captions})
    items = sum(len(each.items) for each in benchmarks)
    models = 1 + 2 * len(work.seeds) + len(work.also)

    control, run = (step_operations(each, pair, denoiser) for each in work.runs(work.seeds[0]).values())
    evaluation = images * image.forward + captions * caption.forward
    vae = vae_cost(folder, family) if config.needs_vae else None
    # Operations of the mapper's start.
    ridge = 0 if vae is None else min(config.ridge_images, pairs) * (image.forward + vae.forward)
    other_bytes = bytes_beside(folder, family, of_format, vae)

    def times_s(of: _Device) -> list[float]:
        decoded_per_s = _DECODED_PER_S * of.cores
        steps_s = [
            max(config.batch_size / decoded_per_s, STEP_OVERHEAD * each / of.training)
            for each in (control, run)
        ]
        looked_s = (pairs + models * images) / decoded_per_s  # the training data are checked once
        evaluation_s = looked_s + models * evaluation / of.evaluation
        control_s, run_s = (len(work.seeds) * steps * each for each in steps_s)
        return [evaluation_s, control_s, run_s + len(work.seeds) * ridge / of.evaluation]

    this = _this(device, of_format, min(config.workers, usable_cores()))
    others = [_Device(*each, cores=config.workers) for each in _GPUS]
    rows = [
        [of.name, *(_time(each) for each in times_s(of)), _time(sum(times_s(of)))] for of in (this, *others)
    ]
    peak = peak_bytes(config, pair, denoiser, other_bytes=other_bytes, mapper=mapper)
    seen = min(steps * config.teacher_batch_size * len(work.seeds), _captions(config.data, config.images))
    disk = {
        "caption embeddings": seen * family.tokens * family.caption_width(shape) * of_format.itemsize,
        "features": models * (images + captions) * 4 * base.embed_dim,
        "checkpoints": len(work.seeds) * config.keep_checkpoints * 12 * (2 * trained + mapper),
        "results and reports": models * (items * _OF_RESULTS + len(benchmarks) * _OF_REPORT),
    }
    parent = next(each for each in (work.out, *work.out.parents) if each.exists())
    free = shutil.disk_usage(parent).free
    return "\n".join(
        [
            f"These are estimates, not measurements, for {steps} steps with the seeds "
            f"{', '.join(map(str, work.seeds))}, and for {models} models on {len(benchmarks)} benchmarks "
            f"({images} images, {captions} captions).{_not_counted(work)}",
            "",
            table(["device", "evaluation", "control", "SDS-CLIP", "together"], rows),
            "",
            f"Time: a step is {control / 1e12:.3g} TFLOP for the control and {run / 1e12:.3g} for SDS-CLIP, counted "
            f"without computing; the mapper's start takes {ridge / 1e12:.3g} TFLOP in float32. For {this.name}, half "
            f"of the rate is assumed at which it multiplied matrices now, {2 * this.training / 1e12:.3g} TFLOP/s; for "
            f"the other devices, a third of their peak. Each core is assumed to decode {_DECODED_PER_S} images per "
            f"second (cores here: {this.cores}, elsewhere: {config.workers}).",
            _memory(peak, device),
            f"Disk: {size_text(sum(disk.values()))} in {work.out}: "
            + ", ".join(f"{what} {size_text(size)}" for what, size in disk.items())
            + f". {size_text(free)} are free there.{' That is too little.' if free < sum(disk.values()) else ''}",
            f"Nothing was written to {work.out}.",
        ]
    )


def _not_counted(work: Reproduction) -> str:
    of_hub = [each.benchmark for each in work.benchmarks if each.data == HUB_ID]
    return f" From the hub, {', '.join(of_hub)} is neither checked nor counted." if of_hub else ""


def _memory(peak: float, device: torch.device) -> str:
    if device.type == "cuda":
        has = torch.cuda.get_device_properties(device).total_memory
        peak += _OF_CUDA
        rest = ", which include 3 GiB for CUDA"
    else:
        has, rest = usable_bytes(), " beside the program itself"
    said = f"Memory: {size_text(peak)} at the peak of SDS-CLIP{rest}. This device has {size_text(has)}."
    if peak < has:
        return said
    remedy = "Lower --sds-batch-size or --micro-batch-size, or set activation_checkpointing in --config."
    return f"{said} That is too little. {remedy}"


def _this(device: torch.device, of_training: torch.dtype, cores: int) -> _Device:
    name = "this CPU" if device.type == "cpu" else f"this {torch.cuda.get_device_name(device)}"
    return _Device(name, device_rate(device, of_training) / 2, device_rate(device, torch.float32) / 2, cores)


def device_rate(device: torch.device, dtype: torch.dtype) -> float:
    """Measure the operations per second of square matrix products."""
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


def _captions(data: Path, images: Path | None) -> int:
    pairs = open_pairs(data, images=images)
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
