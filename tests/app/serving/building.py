"""An engine with class weights over a small CLIP, label sets for it, and a tokenizer that can be held."""

import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from sds_clip.app.metrics import Metrics
from sds_clip.app.serving.classes import SMALL_SET_PROMPTS, ClassSet, ClassWeights
from sds_clip.app.serving.engine import Engine
from sds_clip.app.serving.served_models import ServedModels
from sds_clip.models.clip.model import Clip
from sds_clip.models.disk_cache import DiskCache
from tests.tokenizing import Tokenizing

CLASSES = ClassSet(("circle", "square", "a very long star"), ("a photo of a {}.", "the {c}", "{} {}"))


def new_engine(clip: Clip, **options: Any) -> Engine:
    """An engine over one model, with room for any test."""
    limits = {"max_batch": 32, "max_queue": 1024, "deadline_s": 60.0, "text_cache_size": 16_384} | options
    return Engine(ServedModels({"small": clip}), Metrics(), **limits)


@asynccontextmanager
async def building(
    clip: Clip, folder: Path, *, wait_s: float = 10, max_batch: int = 4, disk: DiskCache | None = None
) -> AsyncIterator[tuple[Engine, ClassWeights]]:
    engine = new_engine(clip, max_batch=max_batch)
    engine.start()
    disk = disk or DiskCache(folder / "classes.sqlite3", max_bytes=10**9)
    classes = ClassWeights(engine, disk, wait_s=wait_s)
    try:
        yield engine, classes
    finally:
        await classes.close()
        await engine.close()


def gated(clip: Clip, gate: threading.Event, reached: threading.Event | None = None) -> Clip:
    """The same CLIP, whose tokenizer says that it is there and waits at the gate."""

    def tokenize(texts: list[str]) -> Tensor:
        if reached is not None:
            reached.set()
        assert gate.wait(30)
        return clip.tokenizer(texts)

    return replace(clip, tokenizer=Tokenizing(tokenize))


def noted(clip: Clip) -> tuple[Clip, list[list[str]]]:
    """The same CLIP, and the texts of each call of its tokenizer."""
    calls: list[list[str]] = []

    def tokenize(texts: list[str]) -> Tensor:
        calls.append(texts)
        return clip.tokenizer(texts)

    return replace(clip, tokenizer=Tokenizing(tokenize)), calls


def large_set(number: int) -> ClassSet:
    """More prompts than a request is made to wait for."""
    return ClassSet(tuple(f"label {number} {n}" for n in range(SMALL_SET_PROMPTS + 1)), ("{}",))
