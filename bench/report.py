"""What every benchmark prints: machine and versions, tables, and targets with the measured values."""

import datetime
import importlib.metadata
import os
import platform
import shlex
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np
import torch

SHOWN_FLAGS = ("avx2", "avx512f", "avx512_bf16", "avx512_fp16", "amx_bf16", "amx_int8")
SERVICE = ("torch", "torchvision", "open_clip_torch", "pillow", "fastapi", "uvicorn")
TRAINING = ("torch", "diffusers", "transformers", "open_clip_torch", "accelerate")


@dataclass(frozen=True)
class Target:
    """A target and its measured value, which must be at least (or at most) `bound`."""

    name: str
    value: float
    bound: float
    at_least: bool

    @property
    def met(self) -> bool:
        return self.value >= self.bound if self.at_least else self.value <= self.bound


def at_least(name: str, value: float, bound: float) -> Target:
    return Target(name, value, bound, at_least=True)


def at_most(name: str, value: float, bound: float) -> Target:
    return Target(name, value, bound, at_least=False)


def note(text: str) -> None:
    print(f"[{time.strftime('%H:%M:%S')}] {text}", file=sys.stderr, flush=True)


def heading(name: str, arguments: Sequence[str] | None) -> str:
    """The date, the command and the machine; taken before the run, for the load of the machine."""
    given = shlex.join(sys.argv[1:] if arguments is None else arguments)
    command = f"python -m {name} {given}".rstrip()
    return f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d}, `{command}`\n\n{machine()}"


def show(heading: str, *paragraphs: str, targets: Sequence[Target]) -> None:
    """Print a benchmark's report."""
    print("\n\n".join([heading, *paragraphs, verdicts(targets)]))


def verdicts(targets: Sequence[Target]) -> str:
    lines = []
    for target in targets:
        bound = f"{'at least' if target.at_least else 'at most'} {target.bound:g}"
        lines.append(f"- {target.name}: {target.value:.5g} ({bound}: {'met' if target.met else 'MISSED'})")
    return "\n".join(lines)


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest value that at least `percent` percent of the values do not exceed (nearest rank)."""
    return float(np.percentile(values, percent, method="inverted_cdf"))


def percentiles(values: Sequence[float], digits: int) -> list[str]:
    """The cells of p50, p95 and p99; empty ones if there are no values."""
    return [f"{percentile(values, percent):.{digits}f}" if values else "" for percent in (50, 95, 99)]


def spread(values: Sequence[float], digits: int) -> str:
    """The median, with the minimum and maximum."""
    return f"{median(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def ratio(over: Sequence[float], under: Sequence[float]) -> float:
    return median(over) / median(under)


def paired_ratio(over: Sequence[float], under: Sequence[float]) -> float:
    """The median over rounds of each round's ratio."""
    return median([one / other for one, other in zip(over, under, strict=True)])


def shown_ratio(over: Sequence[float], under: Sequence[float]) -> str:
    """The ratio of the medians, with the minimum and maximum ratio over rounds."""
    each = [one / other for one, other in zip(over, under, strict=True)]
    return f"{ratio(over, under):.3f} ({min(each):.3f} to {max(each):.3f})"


def machine() -> str:
    """The processor, its cores and matrix instructions, memory and kernel, in one paragraph."""
    information = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    parts = (line.partition(":") for line in information.splitlines())
    fields = {name.strip(): value.strip() for name, _, value in parts}
    flags = [flag for flag in SHOWN_FLAGS if flag in fields.get("flags", "").split()]
    memory_gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    model = f"family {fields.get('cpu family', '?')}, model {fields.get('model', '?')}"
    return (
        f"{fields.get('model name', platform.processor())} ({model}), {os.cpu_count()} cores, "
        f"{' '.join(flags) or 'no AVX2'}; {memory_gib:.0f} GiB memory; {platform.system()} {platform.release()}; "
        f"load average before the run {os.getloadavg()[0]:.2f}."
    )


def versions(names: Sequence[str]) -> str:
    """Versions of Python and of these distributions."""
    found = [f"{name} {importlib.metadata.version(name)}" for name in names]
    return ", ".join([f"Python {platform.python_version()}", *found])


def training_versions(device: torch.device) -> str:
    """Versions used in training, and the threads or the GPU."""
    place = f"{torch.get_num_threads()} threads"
    if device.type == "cuda":
        gpu = torch.cuda.get_device_properties(device)
        place = f"{gpu.name}, {gpu.total_memory / 2**30:.0f} GiB"
    return f"{versions(TRAINING)}; {place}."
