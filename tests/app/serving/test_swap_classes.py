"""Label sets around a swap: small ones are ready before it, and nothing is encoded for versions that are gone."""

import asyncio
import threading
from pathlib import Path

import pytest
import torch

from sds_clip.app.errors import ClassesBuilding
from sds_clip.app.serving.served_models import ModelHandle
from sds_clip.models.clip.model import Clip
from tests.app.serving.building import CLASSES, building, gated, large_set, noted


async def test_small_sets_in_use_are_ready_before_the_swap(
    small_clip: Clip, other_clip: Clip, tmp_path: Path
) -> None:
    clip, encoded = noted(other_clip)
    async with building(small_clip, tmp_path) as (engine, classes):
        old = engine.models.resolve(None)
        await classes.of(old, CLASSES)
        new = ModelHandle("small", 2, clip)
        await classes.prepare(new, old, timeout_s=10)
        assert sum(map(len, encoded)) == CLASSES.size
        answered, weights = await classes.of(new, CLASSES)
        assert answered is new
        assert sum(map(len, encoded)) == CLASSES.size
    async with building(other_clip, tmp_path / "another") as (engine, classes):
        _, expected = await classes.of(engine.models.resolve(None), CLASSES)
    torch.testing.assert_close(weights, expected)


async def test_swap_does_not_wait_for_sets_that_take_long_or_are_large(
    small_clip: Clip, other_clip: Clip, tmp_path: Path
) -> None:
    gate = threading.Event()
    async with building(small_clip, tmp_path) as (engine, classes):
        old = engine.models.resolve(None)
        await classes.of(old, large_set(0))
        encoded_nothing = ModelHandle("small", 2, gated(other_clip, gate))
        await classes.prepare(encoded_nothing, old, timeout_s=10)  # would hang at the gate
        await classes.of(old, CLASSES)
        await classes.prepare(encoded_nothing, old, timeout_s=0.01)
        gate.set()


async def test_large_set_of_a_version_that_is_gone_is_given_up_and_its_request_told(
    small_clip: Clip, other_clip: Clip, tmp_path: Path
) -> None:
    gate, reached = threading.Event(), threading.Event()
    async with building(small_clip, tmp_path) as (engine, classes):
        gone = ModelHandle("small", 1, gated(other_clip, gate, reached))
        waiting = asyncio.create_task(classes.of(gone, large_set(0)))
        assert await asyncio.to_thread(reached.wait, 30)
        classes.give_up_all_but({engine.models.resolve(None).key})
        with pytest.raises(ClassesBuilding):
            await waiting
        gate.set()
