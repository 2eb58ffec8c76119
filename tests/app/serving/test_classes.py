"""Class weights: equal to open_clip's, built once, kept on disk, and honest while they are being built."""

import asyncio
import threading
from dataclasses import replace
from pathlib import Path

import open_clip
import pytest
import torch
from torch import Tensor

from sds_clip.app.errors import ClassesBuilding, Overloaded
from sds_clip.app.serving.classes import MAX_LARGE_BUILDS, SMALL_SET_PROMPTS, ClassSet
from sds_clip.models.clip.model import Clip
from sds_clip.models.disk_cache import DiskCache
from tests.app.serving.building import CLASSES, building, gated, large_set, noted
from tests.tokenizing import Tokenizing


async def test_weights_equal_open_clips_classifier(small_clip: Clip, tmp_path: Path) -> None:
    async with building(small_clip, tmp_path) as (engine, classes):
        served, weights = await classes.of(engine.models.resolve(None), CLASSES)
    templates = [template.replace("{c}", "{}") for template in CLASSES.templates]
    both_places = [lambda label, template=template: template.replace("{}", label) for template in templates]
    expected = open_clip.build_zero_shot_classifier(
        small_clip.network, open_clip.get_tokenizer("ViT-B-32"), CLASSES.labels, both_places
    )
    torch.testing.assert_close(weights, expected.T, atol=1e-6, rtol=0)
    assert served.clip.version == small_clip.version


async def test_a_restart_reads_the_weights_from_disk(small_clip: Clip, tmp_path: Path) -> None:
    def unused(texts: list[str]) -> Tensor:
        raise AssertionError("encoded again")

    async with building(small_clip, tmp_path) as (engine, classes):
        _, built = await classes.of(engine.models.resolve(None), CLASSES)
    async with building(replace(small_clip, tokenizer=Tokenizing(unused)), tmp_path) as (engine, classes):
        _, read = await classes.of(engine.models.resolve(None), CLASSES)
    assert torch.equal(built, read)


async def test_a_damaged_file_is_encoded_again(small_clip: Clip, tmp_path: Path) -> None:
    async with building(small_clip, tmp_path) as (engine, classes):
        _, built = await classes.of(engine.models.resolve(None), CLASSES)
    (file,) = (path for path in tmp_path.rglob("*") if path.is_file())
    file.write_bytes(file.read_bytes()[:40])
    async with building(small_clip, tmp_path) as (engine, classes):
        _, again = await classes.of(engine.models.resolve(None), CLASSES)
    torch.testing.assert_close(again, built)


async def test_a_set_still_being_built_says_how_far_it_is(small_clip: Clip, tmp_path: Path) -> None:
    gate = threading.Event()
    async with building(gated(small_clip, gate), tmp_path, wait_s=0.05) as (engine, classes):
        with pytest.raises(ClassesBuilding, match=f"0 of {SMALL_SET_PROMPTS + 1}") as building_:
            await classes.of(engine.models.resolve(None), large_set(0))
        assert building_.value.retry_after_s is not None
        gate.set()
        while True:
            try:
                _, weights = await classes.of(engine.models.resolve(None), large_set(0))
                break
            except ClassesBuilding:
                continue
        assert weights.shape == (SMALL_SET_PROMPTS + 1, 32)


async def test_a_large_set_is_encoded_in_turns_as_short_as_those_of_requests(
    small_clip: Clip, tmp_path: Path
) -> None:
    clip, encoded = noted(small_clip)
    async with building(clip, tmp_path, wait_s=60) as (engine, classes):
        engine._forward.seconds_per["text"] = 1.0
        await classes.of(engine.models.resolve(None), large_set(0))
    assert len(encoded[0]) == 1


async def test_a_large_set_counts_for_the_key_that_asked_for_it(small_clip: Clip, tmp_path: Path) -> None:
    async with building(small_clip, tmp_path, wait_s=60) as (engine, classes):
        engine._forward.seconds_per["text"] = 1.0
        async with engine._turns.take("alice", 0):
            await classes.of(engine.models.resolve(None), large_set(0))
        assert engine._turns._keys["alice"].computed_s >= 1.0


async def test_a_small_set_under_load_is_waited_for_until_the_requests_deadline(
    small_clip: Clip, tmp_path: Path
) -> None:
    """Of four labels in 80 templates, say: 320 prompts."""
    small = ClassSet(("cat", "dog", "owl", "fox"), tuple(f"{number} {{}}" for number in range(80)))

    gate = threading.Event()
    async with building(gated(small_clip, gate), tmp_path, wait_s=0.01) as (engine, classes):
        served = engine.models.resolve(None)
        waiting = asyncio.create_task(classes.of(served, small))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):  # as Engine.request bounds every request
                await classes.of(served, small)
        assert not waiting.done()
        gate.set()
        answered, weights = await waiting
    assert answered is served
    assert weights.shape == (4, 32)


async def test_two_requests_for_a_set_build_it_once(small_clip: Clip, tmp_path: Path) -> None:
    clip, encoded = noted(small_clip)
    async with building(clip, tmp_path) as (engine, classes):
        served = engine.models.resolve(None)
        await asyncio.gather(classes.of(served, CLASSES), classes.of(served, CLASSES))
    assert sum(map(len, encoded)) == CLASSES.size


class GatedDisk(DiskCache):
    """A disk on which every read waits for its own gate."""

    def __init__(self, file: Path) -> None:
        super().__init__(file)
        self.gates = [threading.Event(), threading.Event()]
        self._next = iter(self.gates)
        self.reached = threading.Semaphore(0)

    def get(self, key: bytes) -> bytes | None:
        gate = next(self._next)
        self.reached.release()
        assert gate.wait(30), "the loop that opens the gate was blocked"
        return super().get(key)


async def test_disk_is_read_beside_the_loop_and_a_set_built_meanwhile_is_not_built_again(
    small_clip: Clip, tmp_path: Path
) -> None:
    clip, encoded = noted(small_clip)
    disk = GatedDisk(tmp_path / "classes.sqlite3")
    async with building(clip, tmp_path, disk=disk) as (engine, classes):
        served = engine.models.resolve(None)
        asked = {asyncio.create_task(classes.of(served, CLASSES)) for _ in disk.gates}
        for _ in disk.gates:
            assert await asyncio.to_thread(disk.reached.acquire, timeout=30)
        disk.gates[0].set()
        await asyncio.wait(asked, return_when=asyncio.FIRST_COMPLETED)
        disk.gates[1].set()
        (_, first), (_, second) = await asyncio.gather(*asked)
    assert torch.equal(first, second)
    assert sum(map(len, encoded)) == CLASSES.size


async def test_too_many_large_sets_at_once_are_refused_but_small_ones_are_not(
    small_clip: Clip, tmp_path: Path
) -> None:
    gate = threading.Event()
    async with building(gated(small_clip, gate), tmp_path, wait_s=0.01) as (engine, classes):
        served = engine.models.resolve(None)
        for number in range(MAX_LARGE_BUILDS):
            with pytest.raises(ClassesBuilding):
                await classes.of(served, large_set(number))
        with pytest.raises(Overloaded):
            await classes.of(served, large_set(MAX_LARGE_BUILDS))
        small = asyncio.create_task(classes.of(served, ClassSet(("a small one",), ("{}",))))
        await asyncio.sleep(0)
        gate.set()
        await small


async def test_after_a_swap_the_previous_version_answers_for_a_large_set_until_the_new_one_is_ready(
    small_clip: Clip, other_clip: Clip, tmp_path: Path
) -> None:
    gate = threading.Event()
    async with building(small_clip, tmp_path) as (engine, classes):
        old, old_weights = await classes.of(engine.models.resolve(None), large_set(0))
        new = engine.models.replace("small", gated(other_clip, gate))
        answered, weights = await classes.of(new, large_set(0))
        assert answered is old
        assert torch.equal(weights, old_weights)
        gate.set()
        while answered is old:
            await asyncio.sleep(0.01)
            answered, weights = await classes.of(new, large_set(0))
        assert answered is new
        assert not torch.allclose(weights, old_weights, atol=1e-3)


async def test_after_a_swap_a_small_set_is_answered_by_the_new_version(
    small_clip: Clip, other_clip: Clip, tmp_path: Path
) -> None:
    async with building(small_clip, tmp_path) as (engine, classes):
        await classes.of(engine.models.resolve(None), CLASSES)
        new = engine.models.replace("small", other_clip)
        answered, _ = await classes.of(new, CLASSES)
        assert answered is new
