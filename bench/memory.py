"""Peak memory of a training step or an evaluation, in its own process."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import resource
import sys
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from bench import child
from bench.train_parts import Shapes


@dataclass(frozen=True)
class Memory:
    """In MiB: held by model, data and libraries before the first step, and the step's peak above that."""

    before_mib: float
    step_mib: float


def measure_memory(shapes: Shapes, variant: str, data: Path) -> Memory:
    """Take one step of a variant in a child process; it includes creating the optimizer's state."""
    return child.call(take_step, shapes, variant, data)


def evaluation_peak_mib(folder: Path) -> float:
    """Evaluate the demo model on a Winoground-shaped set in a child process; returns its peak memory."""
    return child.call(evaluate, folder)


def take_step(shapes: Shapes, variant: str, data: Path) -> Memory:
    from bench.sets import make_pairs
    from bench.steps import set_checkpointing
    from bench.train_parts import build, new_loader
    from sds_clip.models.training.parts import with_negatives

    model = build(shapes)
    set_checkpointing(model, variant)
    trainer = model.trainer(variant)
    pairs = with_negatives(trainer.config, make_pairs(data, shapes.batch_size))
    (batch,) = new_loader(model, pairs, 1)
    before = start_peak(shapes.place)
    trainer.step(batch)
    return Memory(before, read_peak(shapes.place) - before)


def evaluate(folder: Path) -> float:
    from sds_clip.models.checkpoints.load import load_clip
    from sds_clip.models.evaluation.benchmark import run_benchmark
    from sds_clip.models.evaluation.scorers import ClipScorer
    from sds_clip.models.evaluation.winoground import winoground_benchmark

    clip = load_clip("demo", device="cpu", precision="float32")
    with TemporaryDirectory() as kept, ClipScorer(clip, Path(kept)) as scorer:
        run_benchmark(winoground_benchmark(folder), scorer)
    return read_peak(torch.device("cpu"))


def start_peak(device: torch.device) -> float:
    """Reset the peak; returns MiB held now: allocated on the GPU if one is used, else resident."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return torch.cuda.memory_allocated(device) / 2**20
    gc.collect()
    # glibc keeps freed memory; a step that reuses it would seem to take none.
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)
    reset = Path("/proc/self/clear_refs")
    if reset.exists():
        reset.write_text("5")  # Linux: resets the peak to what is resident now
    return read_peak(device)


def read_peak(device: torch.device) -> float:
    """Peak MiB since `start_peak`."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    if Path("/proc/self/status").exists():
        return peak_mib("self")
    scale = 2**20 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / scale


def peak_mib(process: int | str) -> float:
    """Peak resident memory of a process on Linux."""
    status = Path(f"/proc/{process}/status").read_text()
    return int(dict(line.split(":", 1) for line in status.splitlines())["VmHWM"].split()[0]) / 2**10
