"""The most memory that one training step takes above what is there before it, in a process of its own.

The specification comes as JSON on standard input, the result goes as JSON to standard output; `measure_memory` is
both ends of that.
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

import torch

from bench.train_parts import Shapes


@dataclass(frozen=True)
class Memory:
    """In MiB: what model, data and libraries hold before the first step, and the step's most above that."""

    before_mib: float
    step_mib: float


def measure_memory(shapes: Shapes, variant: str, data: Path) -> Memory:
    """Take one step of a variant in a child process; the optimizer's state is made in it."""
    command = [sys.executable, "-m", "bench.step_memory"]
    spec = {"shapes": asdict(shapes), "variant": variant, "data": str(data)}
    done = subprocess.run(command, input=json.dumps(spec), capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"the step whose memory is measured failed:\n{done.stderr[-3000:]}")
    return Memory(**json.loads(done.stdout))


def take_step(shapes: Shapes, variant: str, data: Path) -> Memory:
    """The child's work."""
    from bench.step_time import gradient_of, set_checkpointing
    from bench.train_parts import build, make_pairs, new_loader

    model = build(shapes)
    set_checkpointing(model, variant)
    trainer = model.trainer(gradient_of(variant))
    (batch,) = new_loader(model, make_pairs(data, shapes.batch_size), 1)
    before = start_peak(shapes.place)
    trainer.step(batch)
    return Memory(before, read_peak(shapes.place) - before)


def start_peak(device: torch.device) -> float:
    """Forget the peak so far; MiB held now: of the GPU where one is used, resident otherwise."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return torch.cuda.memory_allocated(device) / 2**20
    gc.collect()
    with contextlib.suppress(
        OSError, AttributeError
    ):  # glibc: a step in what is free already would look like none
        ctypes.CDLL("libc.so.6").malloc_trim(0)
    reset = Path("/proc/self/clear_refs")
    if reset.exists():
        reset.write_text("5")  # Linux: the peak becomes what is resident now
    return read_peak(device)


def read_peak(device: torch.device) -> float:
    """The most MiB held since `start_peak`."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    status = Path("/proc/self/status")
    if status.exists():
        lines = dict(line.split(":", 1) for line in status.read_text().splitlines())
        return int(lines["VmHWM"].split()[0]) / 2**10
    scale = 2**20 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / scale


def main() -> None:
    """Read a specification, take the step, write the result."""
    spec = json.load(sys.stdin)
    memory = take_step(Shapes(**spec["shapes"]), spec["variant"], Path(spec["data"]))
    json.dump(asdict(memory), sys.stdout)


if __name__ == "__main__":
    main()
