"""Our evaluation and CLIP_benchmark's in alternating rounds: what each encodes, and how long it takes."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from bench.evaluate_peer import BATCH_SIZE, Peer
from bench.flops import operations
from bench.measure import note
from models.clip import Clip
from models.evaluation.benchmark import Benchmark, run_benchmark
from models.evaluation.results import Metric, Results
from models.evaluation.scorers import ClipScorer
from models.evaluation.sugarcrepe import sugarcrepe
from models.evaluation.winoground import winoground_benchmark


@dataclass(frozen=True)
class Encodes:
    """Images and texts that go through the model."""

    images: int
    texts: int


@dataclass
class Times:
    """One contestant's seconds by round, and those of all its processes' cores."""

    seconds: list[float] = field(default_factory=list)
    core_seconds: list[float] = field(default_factory=list)

    def add(self, work: Callable[[], Any]) -> None:
        """Do the work; its child processes count once they have ended."""
        before, started = os.times(), time.perf_counter()
        work()
        self.seconds.append(time.perf_counter() - started)
        self.core_seconds.append(sum(os.times()[:4]) - sum(before[:4]))


@dataclass(frozen=True)
class Race:
    """One benchmark, from the files to the figures."""

    name: str
    items: int
    unique: Encodes
    total: Encodes
    expected: float
    """Arithmetic of all encodes over that of the unique ones."""
    ours: Times
    theirs: Times


def race_winoground(clip: Clip, peer: Peer, folder: Path, rounds: int) -> Race:
    """No image or caption is there twice: both encode everything once."""
    return _race(
        "Winoground",
        clip,
        lambda: winoground_benchmark(folder),
        lambda: peer.winoground(folder),
        lambda results: results.metrics,
        rounds,
    )


def race_sugarcrepe(clip: Clip, peer: Peer, folder: Path, rounds: int) -> Race:
    """Images and true captions repeat across the files, which CLIP_benchmark takes one by one."""
    return _race(
        "SugarCrepe",
        clip,
        lambda: sugarcrepe(folder),
        lambda: peer.sugarcrepe(folder),
        lambda results: {name: metrics["acc"] for name, metrics in results.by_tag.items()},
        rounds,
    )


def _race(
    name: str,
    clip: Clip,
    read: Callable[[], Benchmark],
    theirs: Callable[[], dict[str, float]],
    shares: Callable[[Results], dict[str, Metric]],
    rounds: int,
) -> Race:
    results, unique = _ours(clip, read)  # to warm up
    check_same(shares(results), theirs())
    items = read().items
    total = Encodes(sum(len(item.images) for item in items), sum(len(item.captions) for item in items))
    expected = _work(clip, total) / _work(clip, unique)
    race = Race(name, len(items), unique, total, expected, Times(), Times())
    for number in range(rounds):
        note(f"{name}: round {number + 1} of {rounds}")
        race.ours.add(lambda: _ours(clip, read))
        race.theirs.add(theirs)
    return race


def check_same(ours: dict[str, Metric], theirs: dict[str, float]) -> None:
    """Raise RuntimeError unless both found the same, but for one item of each share, which rounding may turn."""
    for name, share in theirs.items():
        if abs(ours[name].value - share) > 1.01 / ours[name].n:
            raise RuntimeError(f"{name} is {ours[name].value} here, and {share} in CLIP_benchmark")


def _ours(clip: Clip, read: Callable[[], Benchmark]) -> tuple[Results, Encodes]:
    with TemporaryDirectory() as kept, ClipScorer(clip, Path(kept), batch_size=BATCH_SIZE) as scorer:
        results = run_benchmark(read(), scorer)
        return results, Encodes(**scorer.encoded)


def _work(clip: Clip, encodes: Encodes) -> float:
    """Floating-point operations of so many encodes."""
    image = operations(lambda: clip.encode_image(torch.zeros(1, 3, *clip.image_size)))
    text = operations(lambda: clip.encode_text(clip.tokenizer(["a"])))
    return encodes.images * image + encodes.texts * text
