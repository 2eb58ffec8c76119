"""Peak memory of a training step or an evaluation, in its own process.

A child's specification comes as JSON on stdin, and its result goes as JSON to stdout.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import json
import resource
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from bench.train_parts import Shapes


@dataclass(frozen=True)
class Memory:
    """In MiB: held by model, data and libraries before the first step, and the step's peak above that."""

    before_mib: float
    step_mib: float


def measure_memory(shapes: Shapes, variant: str, data: Path) -> Memory:
    """Take one step of a variant in a child process; it includes creating the optimizer's state."""
    return Memory(**_in_child("step", {"shapes": asdict(shapes), "variant": variant, "data": str(data)}))


def evaluation_peak_mib(folder: Path) -> float:
    """Evaluate the demo model on a Winoground-shaped set in a child process; returns its peak memory."""
    peak: float = _in_child("evaluation", {"folder": str(folder)})
    return peak


def take_step(shapes: Shapes, variant: str, data: Path) -> Memory:
    from bench.sets import make_pairs
    from bench.steps import gradient_of, set_checkpointing
    from bench.train_parts import build, new_loader

    model = build(shapes)
    set_checkpointing(model, variant)
    trainer = model.trainer(gradient_of(variant))
    (batch,) = new_loader(model, make_pairs(data, shapes.batch_size), 1)
    before = start_peak(shapes.place)
    trainer.step(batch)
    return Memory(before, read_peak(shapes.place) - before)


def evaluate(folder: Path) -> float:
    from models.checkpoints import load_clip
    from models.evaluation.benchmark import run_benchmark
    from models.evaluation.scorers import ClipScorer
    from models.evaluation.winoground import winoground_benchmark

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
    status = Path("/proc/self/status")
    if status.exists():
        lines = dict(line.split(":", 1) for line in status.read_text().splitlines())
        return int(lines["VmHWM"].split()[0]) / 2**10
    scale = 2**20 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / scale


def _in_child(work: str, spec: dict[str, Any]) -> Any:
    command = [sys.executable, "-m", "bench.memory", work]
    done = subprocess.run(command, input=json.dumps(spec), capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"the {work} whose memory is measured failed:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout)


def main() -> None:
    spec = json.load(sys.stdin)
    if sys.argv[1] == "step":
        memory = take_step(Shapes(**spec["shapes"]), spec["variant"], Path(spec["data"]))
        json.dump(asdict(memory), sys.stdout)
    else:
        json.dump(evaluate(Path(spec["folder"])), sys.stdout)


if __name__ == "__main__":
    main()
