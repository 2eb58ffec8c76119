"""How long training steps take, beside their bare parts, and what they wait for."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from bench.bare_step import bare_step, clear, prepare
from bench.measure import note
from bench.train_parts import Model, new_loader
from models.data.pairs import PairSet
from models.teacher.caption_cache import CaptionCache
from models.training.log import synchronize

FULL, SDS, RECOMPUTED = "full", "sds", "full, activation checkpointing"
VARIANTS = (FULL, SDS, RECOMPUTED)
STEP, BARE = "step", "bare"
Seconds = dict[tuple[str, str], list[float]]
"""By variant and way (the trainer's step, or its bare parts): one duration a round."""


@dataclass(frozen=True)
class Waits:
    """A stretch of training from files on disk: the seconds in all, and those spent waiting."""

    name: str
    steps: int
    examples: int
    seconds: float
    data_s: float
    captions_s: float


def gradient_of(variant: str) -> str:
    """The trainer's option that a variant stands for."""
    return SDS if variant == SDS else FULL


def set_checkpointing(model: Model, variant: str) -> None:
    """Let the U-Net keep its activations, or recompute them."""
    if variant == RECOMPUTED:
        model.teacher.enable_activation_checkpointing()
    else:
        model.teacher.unet.disable_gradient_checkpointing()


def time_steps(model: Model, pairs: PairSet, rounds: int) -> Seconds:
    """Interleaved rounds after one to warm up, each on a batch of its own; every second one in reverse order."""
    trainers = {variant: model.trainer(gradient_of(variant)) for variant in VARIANTS}
    batches = list(new_loader(model, pairs, rounds + 1))
    seconds: Seconds = defaultdict(list)
    for number, batch in enumerate(batches):
        note(f"steps: round {number} of {rounds}")
        ready = prepare(model, trainers[FULL], batch)
        runs: dict[tuple[str, str], Callable[[], Any]] = {}
        for variant, trainer in trainers.items():
            runs[variant, STEP] = partial(trainer.step, batch)
            if variant != RECOMPUTED:
                runs[variant, BARE] = partial(bare_step, model, ready, variant)
        for variant, way in list(runs)[:: -1 if number % 2 else 1]:
            set_checkpointing(model, variant)
            taken = timed(runs[variant, way], model.shapes.place)
            clear(model)
            if number:
                seconds[variant, way].append(taken)
    set_checkpointing(model, FULL)
    return dict(seconds)


def measure_waits(model: Model, pairs: PairSet, steps: int) -> list[Waits]:
    """Train from JPEGs on disk, every image and caption for the first time; then with captions kept on disk."""
    note("waits: captions embedded in the step")
    waits = [_train(model, pairs, steps, "captions embedded in the step")]
    with TemporaryDirectory() as folder:
        model.teacher.caption_cache = CaptionCache(Path(folder))
        captions = [caption for index in range(len(pairs)) for caption in pairs.sample(index).captions]
        model.teacher.encode_captions(captions)
        model.teacher.caption_cache = CaptionCache(Path(folder))  # what was held in memory is forgotten
        note("waits: captions from the cache")
        waits.append(_train(model, pairs, steps, "captions from the cache on disk"))
        model.teacher.caption_cache = None
    return waits


def _train(model: Model, pairs: PairSet, steps: int, name: str) -> Waits:
    trainer = model.trainer(FULL)
    with closing(new_loader(model, pairs, steps + 1)) as loader:
        batches = iter(loader)
        trainer.step(next(batches))
        data_s, captions_s = loader.wait_s, trainer.embedding_s
        started = time.perf_counter()
        for batch in batches:
            trainer.step(batch)
        seconds = time.perf_counter() - started
    examples = steps * model.shapes.batch_size
    return Waits(name, steps, examples, seconds, loader.wait_s - data_s, trainer.embedding_s - captions_s)


def timed(work: Callable[[], Any], device: torch.device) -> float:
    """Seconds until the device has done the work."""
    synchronize(device)
    started = time.perf_counter()
    work()
    synchronize(device)
    return time.perf_counter() - started
