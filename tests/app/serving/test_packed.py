"""Packed weights in a service: what it says of them, what it answers with them, and when they go."""

import gc
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from sds_clip.app.registry.publish import publish
from sds_clip.models.checkpoints.load import load_clip
from sds_clip.models.clip import packed
from sds_clip.models.clip.mixed import Member
from sds_clip.models.clip.model import Clip
from sds_clip.models.clip.scoring import match
from sds_clip.models.images.decode import decode_image
from tests.app.serving.conftest import Start
from tests.app.serving.swapping import IMAGES, MATCH, TEXTS, Service, publish_tuned, serving, until
from tests.app.serving.test_mixed import versions_in
from tests.checkpoints import save_tiny_clip

Calls = Callable[[str], list[tuple[Any, ...]]]

pytestmark = pytest.mark.skipif(
    not packed._can_pack(torch.float32), reason="torch cannot pack weights on this machine"
)


@pytest.fixture(params=["float32", "bfloat16"])
def precision(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def load(folder: Path, precision: str = "float32") -> Clip:
    return load_clip(f"local-dir:{folder}", device="cpu", precision=precision)


def pixels_of(clip: Clip) -> torch.Tensor:
    return torch.stack([clip.preprocess(decode_image(image)) for image in IMAGES])


def has_factors(clip: Clip) -> bool:
    return "lora.scale" in clip.identity.tensors


async def assert_answers_as(service: Service, plain: Clip, name: str) -> None:
    """The service's embeddings are those of the weights as they are: to the last bit in bfloat16, nearly in float32.

    Factors that are merged into weights of bfloat16 are rounded with them, and those that a service has are not.
    """
    rounded = 2e-2 if has_factors(plain) else 0
    atol = rounded if plain.precision == "bfloat16" else 1e-6
    for body, theirs in (
        ({"images": MATCH["images"]}, plain.encode_image(pixels_of(plain))),
        ({"texts": TEXTS}, plain.encode_text(plain.tokenizer(TEXTS))),
    ):
        answer = await service.ask("/embed", body, model=name)
        ours = torch.tensor([result["embedding"] for result in answer["results"]])
        torch.testing.assert_close(ours, theirs, atol=atol, rtol=0)


def packs_of(version: str) -> list["weakref.ref[Any]"]:
    """The packs of a base in memory, found without holding it."""
    clips = [
        each for each in gc.get_objects() if type(each) is Clip and each.version == version and each.packed
    ]
    network: Any = clips[0].network
    assert isinstance(network, Member)
    parameters: list[Any] = list(network.family.base.parameters())
    return [weakref.ref(value.packed) for value in parameters if hasattr(value, "packed")]


async def are_gone(packs: list["weakref.ref[Any]"]) -> None:
    def gone() -> bool:
        gc.collect()
        return all(pack() is None for pack in packs)

    assert packs
    await until(gone)


async def test_packed_service_says_so_and_answers_as_the_plain_weights(
    start: Start, tiny_folder: Path, precision: str
) -> None:
    plain = load(tiny_folder, precision)
    async with serving(
        start.folder, [load(tiny_folder, precision)], root=start.root, precision=precision
    ) as service:
        (model,) = (await service.client.get("/models")).json()["models"]
        assert (model["device"], model["precision"], model["packed"]) == ("cpu", precision, True)
        await assert_answers_as(service, plain, "small")
        answer = await service.ask("/match", MATCH)
        scores = torch.tensor([result["scores"] for result in answer["results"]])
        expected = match(
            plain.encode_image(pixels_of(plain)),
            plain.encode_text(plain.tokenizer(TEXTS)),
            logit_scale=plain.logit_scale,
            logit_bias=plain.logit_bias,
        ).scores
        torch.testing.assert_close(scores, expected, atol=1e-4 if precision == "float32" else 0, rtol=0)


async def test_versions_over_a_packed_base_share_batches_and_answer_as_their_plain_weights(
    start: Start, tiny_folder: Path, precision: str, calls: Calls
) -> None:
    names = ["small", *start.published]
    plain = [
        load(folder, precision) for folder in (tiny_folder, *(start.root / name for name in start.published))
    ]
    batches = calls("sds_clip.app.serving.forward.encode_images")
    async with serving(
        start.folder, [load(tiny_folder, precision)], root=start.root, precision=precision
    ) as service:
        for name, clip in zip(names, plain, strict=True):
            await assert_answers_as(service, clip, name)
        batches.clear()
        compared = await service.compare(names)
        assert versions_in(batches) == [{start.base, *start.published}]
    for answer, clip in zip(compared, plain, strict=True):
        images, texts = clip.encode_image(pixels_of(clip)), clip.encode_text(clip.tokenizer(TEXTS))
        expected = match(images, texts, logit_scale=clip.logit_scale, logit_bias=clip.logit_bias).scores
        scores = torch.tensor([result["scores"] for result in answer["results"]])
        rounded = precision == "bfloat16" and has_factors(clip)
        torch.testing.assert_close(scores, expected, atol=2e-2 if rounded else 1e-4, rtol=0)


async def test_packs_of_a_base_that_no_version_needs_any_more_are_freed(start: Start) -> None:
    root = start.folder / "versions"
    wholes = [
        publish(
            save_tiny_clip(start.folder / f"whole {seed}", seed=seed), root, job="import", fence=0
        ).version
        for seed in (8, 9)
    ]
    async with start(root=root, max_versions=1) as service:
        assert await service.version(model=wholes[0]) == wholes[0]
        packs = packs_of(wholes[0])
        assert await service.version(model=wholes[1]) == wholes[1]  # there is room for one
        await are_gone(packs)
        assert all(pack() is not None for pack in packs_of(wholes[1]))


async def test_versions_that_come_and_go_over_a_base_pack_nothing(start: Start, calls: Calls) -> None:
    async with start(max_versions=1) as service:
        packed = calls("sds_clip.models.clip.packed._packed")
        for name in start.published * 2:
            assert await service.version(model=name) == name
        assert packed == []
        assert packs_of(start.base)


async def test_swap_of_a_whole_base_packs_it_once(start: Start, calls: Calls) -> None:
    root, folder = start.folder / "versions", save_tiny_clip(start.folder / "whole", seed=9)
    whole = publish(folder, root, job="import", fence=0).version
    tuned = [publish_tuned(root, load(folder), start.folder / f"tuned {seed}", seed=seed) for seed in (1, 2)]
    async with start(root=root) as service:
        packed = calls("sds_clip.models.clip.packed._packed")
        await service.promote(whole)
        once = len(packed)
        assert once == len(packs_of(whole))
        await service.promote(tuned[0], tuned[1], whole, start.base, whole)
        assert await service.version() == whole
        assert len(packed) == once
