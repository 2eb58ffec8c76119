"""Training steps: their time compared with their bare parts, and what they wait for."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from bench.bare_step import bare_step, clear, prepare
from bench.report import note
from bench.rounds import in_turns, timed
from bench.train_parts import CLIP, FULL, MEASURED, RECOMPUTED, TEXT_MAP, VARIANTS, Model, new_loader
from sds_clip.models.data.pairs import PairSet
from sds_clip.models.teacher.caption_cache import CaptionCache
from sds_clip.models.training.parts import with_negatives

STEP, BARE = "step", "bare"
# By variant and way (the trainer's step, or its bare parts): one duration per round.
Seconds = dict[tuple[str, str], list[float]]


@dataclass(frozen=True)
class Waits:
    """A stretch of training from files on disk: total seconds, and those spent waiting."""

    name: str
    steps: int
    examples: int
    seconds: float
    data_s: float
    captions_s: float


def set_checkpointing(model: Model, variant: str) -> None:
    """Make the U-Net keep or recompute its activations."""
    if variant == RECOMPUTED:
        model.teacher.enable_activation_checkpointing()
    else:
        model.teacher.denoiser.disable_gradient_checkpointing()


def time_steps(model: Model, pairs: PairSet, rounds: int) -> Seconds:
    """Rounds after a warm-up, each on its own batch."""
    trainers = {variant: model.trainer(variant) for variant in VARIANTS}
    config = trainers[CLIP].config
    batches = list(new_loader(model, with_negatives(config, pairs), rounds + 1))
    inputs = [prepare(model, config, batch) for batch in batches]
    for batch in batches:  # what both towers make of it is known from here on
        trainers[TEXT_MAP].step(batch)
    runs: dict[tuple[str, str], Callable[[], float]] = {}

    def add(variant: str, way: str, works: list[Callable[[], Any]]) -> None:
        waiting = iter(works)

        def run() -> float:
            set_checkpointing(model, variant)
            seconds = timed(next(waiting), model.shapes.place)
            clear(model)
            return seconds

        runs[variant, way] = run

    for variant, trainer in trainers.items():
        add(variant, STEP, [partial(trainer.step, batch) for batch in batches])
        if variant in MEASURED:
            add(variant, BARE, [partial(bare_step, model, ready, variant) for ready in inputs])
    seconds = in_turns("steps", rounds, runs, warm_up=True)
    set_checkpointing(model, FULL)
    return seconds


def measure_waits(model: Model, pairs: PairSet, steps: int) -> list[Waits]:
    """Train from JPEGs on disk, with nothing cached; then with captions cached on disk."""
    note("waits: captions embedded in the step")
    waits = [_train(model, pairs, steps, "captions embedded in the step")]
    with TemporaryDirectory() as folder:
        model.teacher.caption_cache = CaptionCache(Path(folder))
        captions = [caption for index in range(len(pairs)) for caption in pairs.sample(index).captions]
        model.teacher.encode_captions(captions)
        model.teacher.caption_cache = CaptionCache(Path(folder))  # drops what the first cache held in memory
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
