"""The bare path: decode, preprocess and forward in one process without HTTP, as the baseline for serving.

It runs in a process of its own.
"""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch

from bench import child
from sds_clip.models.checkpoints.load import load_served
from sds_clip.models.clip.packed import pack
from sds_clip.models.images.decode import decode_image


@dataclass(frozen=True)
class BareSpec:
    """`images` are processed in batches of `batch_size`, then `singles` of them one by one."""

    reference: str
    device: str
    precision: str
    images: list[str]
    batch_size: int
    singles: int
    threads: int


@dataclass(frozen=True)
class BareResult:
    """Images a second by way of batching, and the latencies of single images."""

    rates: dict[str, float]
    single_ms: list[float]
    packed_rate: float
    """The best of the ways with packed weights, as the service has them."""

    @property
    def images_per_second(self) -> float:
        """The best of the ways, since that is the harder baseline."""
        return max(self.rates.values())


def run_bare(spec: BareSpec, environment: dict[str, str]) -> BareResult:
    """Measure in child processes, with OpenMP threads that spin while waiting and with ones that sleep.

    Spinning is a little faster on an idle machine and several times slower on a shared one. The best way of
    batching and the faster single images count.
    """
    results = {
        policy: child.call(measure, spec, environment={**environment, "OMP_WAIT_POLICY": policy})
        for policy in ("ACTIVE", "PASSIVE")
    }
    rates = {
        f"{way}, {policy}": rate for policy, result in results.items() for way, rate in result.rates.items()
    }
    return BareResult(
        rates,
        min((result.single_ms for result in results.values()), key=median),
        max(result.packed_rate for result in results.values()),
    )


def measure(spec: BareSpec) -> BareResult:
    """Measure both ways of batching one after the other, then single images, then the ways with packed weights."""
    torch.set_num_threads(spec.threads)
    clip = computing = load_served(spec.reference, device=spec.device, precision=spec.precision)
    files = [Path(path).read_bytes() for path in spec.images]
    batches = [files[start : start + spec.batch_size] for start in range(0, len(files), spec.batch_size)]

    def pixels(data: bytes) -> torch.Tensor:
        prepared: torch.Tensor = clip.preprocess(decode_image(data, least_side=clip.least_side))
        return prepared

    def forward(batch: list[torch.Tensor]) -> None:
        computing.encode_image(torch.stack(batch)).cpu()

    def single(data: bytes) -> float:
        start = time.perf_counter()
        forward([pixels(data)])
        return (time.perf_counter() - start) * 1000

    with ThreadPoolExecutor(spec.threads) as pool:

        def in_turns() -> None:
            for batch in batches:
                forward(list(pool.map(pixels, batch)))

        def overlapped() -> None:
            for ready in _one_ahead([pool.submit(pixels, data) for data in batch] for batch in batches):
                forward([future.result() for future in ready])

        def measured() -> dict[str, float]:
            forward([pixels(data) for data in batches[0]])
            ways = {"in turns": in_turns, "overlapped": overlapped}
            return {way: len(files) / _seconds(run) for way, run in ways.items()}

        rates = measured()
        # The first few warm up and are not timed.
        single_ms = [single(data) for data in files[:5] + files[: spec.singles]][5:]
        computing = pack(clip)
        return BareResult(rates, single_ms, max(measured().values()))


def _one_ahead(batches: Iterator[list[Future[Any]]]) -> Iterator[list[Future[Any]]]:
    """Yield each batch once the next one is submitted, so that the next decodes during this one's forward."""
    current = next(batches, None)
    while current is not None:
        following = next(batches, None)
        yield current
        current = following


def _seconds(work: Callable[[], None]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start
