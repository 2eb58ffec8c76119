"""Our evaluation and CLIP_benchmark's, of the same weights on the same files, in alternating rounds.

CLIP_benchmark's model, data set, `DataLoader`, collating and metric are assembled as its command line does
with `--no_amp`, with as many workers as ours. Only Winoground's data set is made here, since CLIP_benchmark's
reads the hub.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from clip_benchmark.datasets.builder import image_captions_collate_fn
from clip_benchmark.datasets.sugar_crepe import SugarCrepe
from clip_benchmark.metrics import image_caption_selection
from clip_benchmark.models.open_clip import load_open_clip
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from bench.rounds import in_turns
from bench.sets import PARTS
from sds_clip.models.clip.model import Clip
from sds_clip.models.evaluation.benchmark import Benchmark, run_benchmark
from sds_clip.models.evaluation.results import Metric, Results
from sds_clip.models.evaluation.scorers import ClipScorer
from sds_clip.models.evaluation.sugarcrepe import sugarcrepe
from sds_clip.models.evaluation.winoground import winoground_benchmark
from sds_clip.models.machine import usable_cores
from sds_clip.models.training.cost import operations

BATCH_SIZE = 32  # images per forward


class WinogroundFolder(Dataset[tuple[Tensor, list[str]]]):
    """Returns what CLIP_benchmark's `WinoGround` does, from files instead of the hub."""

    def __init__(self, folder: Path, transform: Any) -> None:
        lines = (folder / "examples.jsonl").read_text(encoding="utf-8").splitlines()
        self._records = [json.loads(line) for line in lines]
        self._images = folder / "images"
        self._transform = transform

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int) -> tuple[Tensor, list[str]]:
        record = self._records[index]
        images = [Image.open(self._images / f"{record[f'image_{side}']}.jpg") for side in (0, 1)]
        captions = [record["caption_0"], record["caption_1"]]
        return torch.stack([self._transform(image) for image in images]), captions


@dataclass(frozen=True)
class Peer:
    """A model as CLIP_benchmark loads it."""

    model: Any
    transform: Any
    tokenizer: Any

    @staticmethod
    def load(folder: Path) -> Peer:
        model, transform, tokenizer = load_open_clip(f"local-dir:{folder}", None)
        return Peer(model.eval(), transform, tokenizer)

    def winoground(self, folder: Path) -> dict[str, float]:
        """Its text, image and group accuracy, by our names."""
        # Half as many items, since each has two images.
        found = self._evaluate(WinogroundFolder(folder, self.transform), BATCH_SIZE // 2)
        names = {"text_score": "text_acc", "image_score": "image_acc", "group_score": "acc"}
        return {ours: found[theirs] for ours, theirs in names.items()}

    def sugarcrepe(self, folder: Path) -> dict[str, float]:
        """Its accuracy on each of the seven files, one run after another, as it does."""
        found = {}
        for name in PARTS:
            part = SugarCrepe(str(folder / "val2017"), str(folder / f"{name}.json"), self.transform)
            found[name] = self._evaluate(part, BATCH_SIZE)["acc"]
        return found

    def _evaluate(self, data: Any, batch_size: int) -> dict[str, float]:
        loader = DataLoader(
            data,
            batch_size=batch_size,
            shuffle=False,
            num_workers=usable_cores(),
            collate_fn=image_captions_collate_fn,
        )
        found: dict[str, float] = image_caption_selection.evaluate(
            self.model, loader, self.tokenizer, "cpu", amp=False
        )
        return found


@dataclass(frozen=True)
class Encodes:
    """Numbers of images and texts encoded."""

    images: int
    texts: int


@dataclass
class Times:
    """One contestant's wall seconds and its CPU seconds over all processes, by round."""

    seconds: list[float] = field(default_factory=list)
    core_seconds: list[float] = field(default_factory=list)

    def add(self, work: Callable[[], Any]) -> None:
        """Time the work; child processes count once they have ended."""
        before, started = os.times(), time.perf_counter()
        work()
        self.seconds.append(time.perf_counter() - started)
        self.core_seconds.append(sum(os.times()[:4]) - sum(before[:4]))


@dataclass(frozen=True)
class Race:
    """One benchmark, timed from files to metrics."""

    name: str
    items: int
    unique: Encodes
    total: Encodes
    expected: float
    """FLOPs of all encodes over FLOPs of the unique ones."""
    ours: Times
    theirs: Times


def race_winoground(clip: Clip, peer: Peer, folder: Path, rounds: int) -> Race:
    """No image or caption repeats, so both sides encode everything once."""
    return _race(
        "Winoground",
        clip,
        lambda: winoground_benchmark(folder),
        lambda: peer.winoground(folder),
        lambda results: results.metrics,
        rounds,
    )


def race_sugarcrepe(clip: Clip, peer: Peer, folder: Path, rounds: int) -> Race:
    """Images and true captions repeat across files; CLIP_benchmark encodes each file anew."""
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
    results, unique = _ours(clip, read)  # warm-up
    check_same(shares(results), theirs())
    items = read().items
    total = Encodes(sum(len(item.images) for item in items), sum(len(item.captions) for item in items))
    expected = _work(clip, total) / _work(clip, unique)
    race = Race(name, len(items), unique, total, expected, Times(), Times())
    runs = {
        "sds-clip": partial(race.ours.add, partial(_ours, clip, read)),
        "CLIP_benchmark": partial(race.theirs.add, theirs),
    }
    in_turns(name, rounds, runs)
    return race


def check_same(ours: dict[str, Metric], theirs: dict[str, float]) -> None:
    """Raise RuntimeError if the shares differ by more than one item, which rounding may change."""
    for name, share in theirs.items():
        if abs(ours[name].value - share) > 1.01 / ours[name].n:
            raise RuntimeError(f"{name} is {ours[name].value} here, and {share} in CLIP_benchmark")


def _ours(clip: Clip, read: Callable[[], Benchmark]) -> tuple[Results, Encodes]:
    with TemporaryDirectory() as kept, ClipScorer(clip, Path(kept), batch_size=BATCH_SIZE) as scorer:
        results = run_benchmark(read(), scorer)
        return results, Encodes(**scorer.encoded)


def _work(clip: Clip, encodes: Encodes) -> float:
    image = operations(lambda: clip.encode_image(torch.zeros(1, 3, *clip.image_size)))
    text = operations(lambda: clip.encode_text(clip.tokenizer(["a"])))
    return encodes.images * image + encodes.texts * text
