"""The engine over a small CLIP, against the CLIP itself."""

import asyncio
import dataclasses
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sds_clip.app.errors import DeadlineExceeded, InternalError, Unavailable, UnknownModel
from sds_clip.app.serving import turns
from sds_clip.app.serving.engine import TURN_CHARS, Engine
from sds_clip.app.serving.forward import Features, as_features
from sds_clip.app.serving.served_models import ModelHandle, ServedModels
from sds_clip.models.clip.model import Clip
from tests.app.serving.building import new_engine, noted
from tests.tokenizing import Tokenizing

TEXTS = ["a red circle", "a blue square", "a red circle"]


def pictures(count: int, seed: int = 0) -> list[Tensor]:
    return list(torch.randn(count, 3, 32, 32, generator=torch.Generator().manual_seed(seed)))


@asynccontextmanager
async def serving(clip: Clip, **options: float) -> AsyncIterator[Engine]:
    engine = new_engine(clip, **options)
    engine.start()
    try:
        yield engine
    finally:
        await engine.close()


async def features_of(engine: Engine, model: ModelHandle, **items: Any) -> Features:
    """What the engine makes of pixels and texts."""
    return await engine.encode(model, as_features, **items)


async def test_features_equal_the_models_own(small_clip: Clip) -> None:
    async with serving(small_clip) as engine:
        pixels = pictures(3)
        features = await features_of(engine, engine.models.resolve(None), pixels=pixels, texts=TEXTS)
    torch.testing.assert_close(features.images, small_clip.encode_image(torch.stack(pixels)))
    torch.testing.assert_close(features.texts, small_clip.encode_text(small_clip.tokenizer(TEXTS)))


async def test_unnormalised_features_keep_their_length(small_clip: Clip) -> None:
    async with serving(small_clip) as engine:
        pixels = pictures(2)
        served = engine.models.resolve(None)
        features = await features_of(engine, served, pixels=pixels, texts=TEXTS, normalize=False)
    expected = small_clip.encode_image(torch.stack(pixels), normalize=False)
    torch.testing.assert_close(features.images, expected)
    assert (features.images.norm(dim=-1) - 1).abs().min() > 1e-3


async def test_scores_do_not_depend_on_what_else_is_in_the_batch(small_clip: Clip) -> None:
    async with serving(small_clip) as engine:
        served = engine.models.resolve(None)
        alone = await features_of(engine, served, pixels=pictures(1))
        together = await asyncio.gather(
            features_of(engine, served, pixels=pictures(1)),
            *(
                features_of(engine, served, pixels=pictures(5, seed=n), texts=[f"text {n}"])
                for n in range(1, 9)
            ),
        )
    torch.testing.assert_close(together[0].images, alone.images, atol=1e-6, rtol=0)


async def test_a_request_larger_than_a_batch_is_encoded_in_chunks(small_clip: Clip) -> None:
    async with serving(small_clip, max_batch=4) as engine:
        pixels = pictures(11)
        features = await features_of(engine, engine.models.resolve(None), pixels=pixels)
    torch.testing.assert_close(features.images, small_clip.encode_image(torch.stack(pixels)))


async def test_repeated_texts_are_encoded_once_and_then_kept(small_clip: Clip) -> None:
    clip, encoded = noted(small_clip)
    async with serving(clip) as engine:
        served = engine.models.resolve(None)
        await features_of(engine, served, texts=TEXTS)
        await features_of(engine, served, texts=[*TEXTS, "a third"])
    assert list(map(len, encoded)) == [2, 1]


async def test_another_request_is_answered_between_the_texts_of_a_long_one(small_clip: Clip) -> None:
    began, others = threading.Event(), threading.Event()
    tokenized: list[int] = []

    def counting(texts: list[str]) -> Tensor:
        began.set()
        others.wait(60)
        tokenized.append(len(texts))
        return small_clip.tokenizer(texts)

    clip = dataclasses.replace(small_clip, tokenizer=Tokenizing(counting))
    async with serving(clip, max_batch=4, text_cache_size=0) as engine:
        served = engine.models.resolve(None)
        texts = [f"text {number}" for number in range(40)]
        long = asyncio.ensure_future(features_of(engine, served, texts=texts))
        await asyncio.to_thread(began.wait, 60)
        other = asyncio.ensure_future(features_of(engine, served, texts=["another"]))
        await asyncio.sleep(0)  # it waits in the queue by now
        others.set()
        await other
        before_the_other = sum(tokenized)
        features = await long
    assert before_the_other <= 4 + 4 + 1  # the turn that was running, and one batch with a turn of each
    assert max(tokenized) <= 5
    torch.testing.assert_close(features.texts, small_clip.encode_text(small_clip.tokenizer(texts)))


async def test_another_request_is_answered_between_the_images_of_a_large_one(small_clip: Clip) -> None:
    async with serving(small_clip, max_batch=4) as engine:
        served, pixels = engine.models.resolve(None), pictures(16)
        large = asyncio.ensure_future(features_of(engine, served, pixels=pixels))
        await asyncio.sleep(0)  # its first turn waits in the queue by now
        await features_of(engine, served, pixels=pictures(1, seed=1))
        assert not large.done()
        features = await large
    torch.testing.assert_close(features.images, small_clip.encode_image(torch.stack(pixels)))


async def test_two_active_keys_have_short_turns_and_a_key_alone_has_full_batches(
    small_clip: Clip, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(turns, "TURN_S", 1e-9)  # one item, at any rate
    clip, tokenized = noted(small_clip)

    async def ask(caller: str) -> None:
        texts = [f"{caller} {number}" for number in range(8)]
        new_texts = engine.new_texts(served, texts)
        async with engine.admit(0, len(new_texts), caller=caller, lane=served.name):
            await features_of(engine, served, texts=texts, new_texts=new_texts)

    async with serving(clip, max_batch=8) as engine:
        served = engine.models.resolve(None)
        await ask("alice")
        assert list(map(len, tokenized)) == [8]
        async with engine.admit(0, 0, caller="bob", lane=served.name):
            await ask("carol")
        assert list(map(len, tokenized[1:])) == [1] * 8


async def test_long_texts_take_turns_of_few(small_clip: Clip) -> None:
    clip, tokenized = noted(small_clip)
    async with serving(clip) as engine:
        texts = [f"{number} {'a' * 4000}" for number in range(40)]
        await features_of(engine, engine.models.resolve(None), texts=texts)
    assert len(tokenized) > 1
    assert max(sum(map(len, texts)) for texts in tokenized) <= TURN_CHARS


async def test_text_features_are_kept_by_version(small_clip: Clip, other_clip: Clip) -> None:
    async with serving(small_clip) as engine:
        await features_of(engine, engine.models.resolve(None), texts=TEXTS)
        engine.models.replace("small", other_clip)
        features = await features_of(engine, engine.models.resolve(None), texts=TEXTS)
    torch.testing.assert_close(features.texts, other_clip.encode_text(other_clip.tokenizer(TEXTS)))


async def test_known_texts_have_the_features_that_were_encoded_bit_for_bit_in_any_order(
    small_clip: Clip,
) -> None:
    texts = [f"text {number}" for number in range(10)]
    order = [7, 0, 7, 3, 9]
    async with serving(small_clip) as engine:
        served = engine.models.resolve(None)
        encoded = await features_of(engine, served, texts=texts, normalize=False)
        known = await features_of(engine, served, texts=[texts[n] for n in order], normalize=False)
    assert known.texts.dtype == torch.float32
    assert torch.equal(known.texts, encoded.texts[order])


async def test_the_least_recently_used_text_makes_room_for_a_new_one(small_clip: Clip) -> None:
    async with serving(small_clip, text_cache_size=2) as engine:
        served = engine.models.resolve(None)
        for texts in (["one"], ["two"], ["one"], ["three"]):
            await features_of(engine, served, texts=texts)
        assert engine.new_texts(served, ["one", "two", "three"]) == ["two"]


async def test_a_text_cache_of_size_zero_keeps_nothing(small_clip: Clip) -> None:
    async with serving(small_clip, text_cache_size=0) as engine:
        served = engine.models.resolve(None)
        first = await features_of(engine, served, texts=TEXTS)
        second = await features_of(engine, served, texts=TEXTS)
        torch.testing.assert_close(first.texts, second.texts)


async def test_a_replacement_grows_the_generation_and_keeps_the_previous(
    small_clip: Clip, other_clip: Clip
) -> None:
    async with serving(small_clip) as engine:
        old = engine.models.resolve("small")
        new = engine.models.replace("small", other_clip)
        assert (old.generation, new.generation) == (1, 2)
        assert engine.models.resolve("default") is new
        assert engine.models.replaced(new) is old


async def test_a_request_finishes_on_the_weights_that_it_took(small_clip: Clip, other_clip: Clip) -> None:
    async with serving(small_clip) as engine:
        held = engine.models.resolve(None)
        engine.models.replace("small", other_clip)
        features = await features_of(engine, held, pixels=pictures(1))
    torch.testing.assert_close(features.images, small_clip.encode_image(torch.stack(pictures(1))))


async def test_numbers_that_are_not_finite_are_an_error_of_that_request_alone(small_clip: Clip) -> None:
    async with serving(small_clip) as engine:
        served = engine.models.resolve(None)
        broken = [torch.full((3, 32, 32), float("nan"))]
        good, bad = await asyncio.gather(
            features_of(engine, served, pixels=pictures(1)),
            features_of(engine, served, pixels=broken),
            return_exceptions=True,
        )
        assert isinstance(bad, InternalError)
        assert not isinstance(good, BaseException)


def test_an_unknown_model_is_refused_with_the_names_served(small_clip: Clip) -> None:
    with pytest.raises(UnknownModel, match="default, small"):
        ServedModels({"small": small_clip}).resolve("large")


class Stalled(nn.Module):
    """A network that never answers until it is told to stop."""

    def __init__(self) -> None:
        super().__init__()
        self.stop = threading.Event()

    def encode_image(self, pixels: Tensor, *, normalize: bool) -> Tensor:
        self.stop.wait(30)
        return torch.ones(len(pixels), 32)


async def test_a_request_past_its_deadline_is_told_so(small_clip: Clip) -> None:
    stalled = Stalled()
    async with serving(dataclasses.replace(small_clip, network=stalled), deadline_s=0.05) as engine:
        served = engine.models.resolve(None)
        with pytest.raises(DeadlineExceeded):
            async with engine.admit(1, 0, caller="", lane=served.name):
                await features_of(engine, served, pixels=pictures(1))
        stalled.stop.set()


async def is_ready(engine: Engine) -> bool:
    try:
        await engine.check_ready()
    except Unavailable:
        return False
    return True


async def test_not_ready_while_no_forward_pass_answers(
    small_clip: Clip, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sds_clip.app.serving.engine.PROBE_TIMEOUT_S", 0.05)

    stalled = Stalled()
    async with serving(dataclasses.replace(small_clip, network=stalled)) as engine:  # type: ignore[arg-type]
        with pytest.raises(Unavailable, match="model"):
            await engine.check_ready()
        stalled.stop.set()
        async with asyncio.timeout(30):
            while not await is_ready(engine):
                pass


async def test_not_ready_while_answers_are_not_finite(small_clip: Clip) -> None:
    class Broken(Stalled):
        def encode_image(self, pixels: Tensor, *, normalize: bool) -> Tensor:
            return torch.full((len(pixels), 32), float("nan"))

    async with serving(dataclasses.replace(small_clip, network=Broken())) as engine:
        for _ in range(2):
            with pytest.raises(Unavailable):
                await engine.check_ready()


async def test_not_ready_once_draining(small_clip: Clip) -> None:
    async with serving(small_clip) as engine:
        await engine.check_ready()
        await engine.drain(1)
        with pytest.raises(Unavailable):
            await engine.check_ready()
