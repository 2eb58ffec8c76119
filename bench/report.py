"""What the benchmark prints: the machine, one table, and the targets with what was measured."""

import importlib.metadata
import os
import platform
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

SHOWN_FLAGS = ("avx2", "avx512f", "avx512_bf16", "avx512_fp16", "amx_bf16", "amx_int8")
LATENCIES = ("p50 ms", "p95 ms", "p99 ms")
COLUMNS = ("system", "work", "clients", "a second", *LATENCIES, "compared", "min cosine", "RSS MiB")
ALIGNMENT = ("---", "---", "---:", "---:", "---:", "---:", "---:", "---", "---:", "---:")


@dataclass(frozen=True)
class Row:
    """One line of the table: requests a second in each round, all latencies, and what else was measured."""

    system: str
    work: str
    clients: str
    rates: Sequence[float] = ()
    latencies_ms: Sequence[float] = ()
    compared: str = ""
    resident_mib: float | None = None
    min_cosine: float | None = None


@dataclass(frozen=True)
class Target:
    """A promise and what was measured: `value` has to be at least (or at most) `bound`."""

    name: str
    value: float
    bound: float
    at_least: bool

    @property
    def met(self) -> bool:
        """Whether the promise is kept."""
        return self.value >= self.bound if self.at_least else self.value <= self.bound


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest value that at least `percent` percent of the values do not exceed (nearest rank)."""
    if not values:
        raise ValueError("no values")
    ordered = sorted(values)
    rank = -(-len(ordered) * percent // 100)
    return ordered[max(0, int(rank) - 1)]


def median(values: Sequence[float]) -> float:
    """The middle value, or the mean of the middle two."""
    if not values:
        raise ValueError("no values")
    ordered = sorted(values)
    half = len(ordered) // 2
    return ordered[half] if len(ordered) % 2 else (ordered[half - 1] + ordered[half]) / 2


def table(rows: Sequence[Row]) -> str:
    """The rows as a Markdown table."""
    lines = ["| " + " | ".join(COLUMNS) + " |", "| " + " | ".join(ALIGNMENT) + " |"]
    for row in rows:
        latencies = [
            percentile(row.latencies_ms, percent) if row.latencies_ms else None for percent in (50, 95, 99)
        ]
        cells = [row.system, row.work, row.clients, _rate(row.rates)]
        cells += [_number(latency, 1) for latency in latencies]
        cells += [row.compared, _number(row.min_cosine, 6), _number(row.resident_mib, 0)]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def verdicts(targets: Sequence[Target]) -> str:
    """One line a target."""
    lines = []
    for target in targets:
        bound = f"{'at least' if target.at_least else 'at most'} {target.bound:g}"
        lines.append(f"- {target.name}: {target.value:.5g} ({bound}: {'met' if target.met else 'MISSED'})")
    return "\n".join(lines)


def machine() -> str:
    """The processor, its cores and matrix instructions, memory and kernel, in one paragraph."""
    information = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    parts = (line.partition(":") for line in information.splitlines())
    fields = {name.strip(): value.strip() for name, _, value in parts}
    flags = [flag for flag in SHOWN_FLAGS if flag in fields.get("flags", "").split()]
    memory_gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    model = f"family {fields.get('cpu family', '?')}, model {fields.get('model', '?')}"
    system = f"{platform.system()} {platform.release()}"
    return (
        f"{fields.get('model name', platform.processor())} ({model}), {os.cpu_count()} cores, "
        f"{' '.join(flags) or 'no AVX2'}; {memory_gib:.0f} GiB memory; {system}; "
        f"load average before the run {os.getloadavg()[0]:.2f}"
    )


def own_versions() -> str:
    """The versions of what this project's service runs on."""
    names = ("torch", "torchvision", "open_clip_torch", "pillow", "fastapi", "uvicorn")
    versions = [f"{name} {importlib.metadata.version(name)}" for name in names]
    return f"Python {platform.python_version()}, " + ", ".join(versions)


def peer_versions(environment: Path, names: Sequence[str]) -> str:
    """The versions that a peer's environment holds."""
    code = (
        "import importlib.metadata as m, sys; print(', '.join(f'{n} {m.version(n)}' for n in sys.argv[1:]))"
    )
    command = [str(environment / "bin" / "python"), "-c", code, *names]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def _rate(rates: Sequence[float]) -> str:
    if not rates:
        return ""
    return (
        f"{median(rates):.1f} ({min(rates):.1f} to {max(rates):.1f})" if len(rates) > 1 else f"{rates[0]:.1f}"
    )


def _number(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"
