"""Requests of different versions in one batch, and one request for several versions."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

import sds_clip.app.decoder
import sds_clip.app.serving.engine
import sds_clip.app.serving.forward
import sds_clip.app.serving.loading
from sds_clip.app.keys import create_key
from sds_clip.app.registry.publish import publish
from sds_clip.models.clip.model import Clip
from tests.app.conftest import base64_of, png
from tests.app.serving.conftest import Start, another
from tests.app.serving.swapping import (
    CLASSIFY,
    EMBED,
    MATCH,
    assert_of_its_version,
    publish_tuned,
)

Calls = Callable[[str], list[tuple[Any, ...]]]
VERBS = {"/match": MATCH, "/classify": CLASSIFY}


@pytest.fixture
def batches(calls: Calls) -> list[tuple[Any, ...]]:
    return calls("sds_clip.app.serving.forward.encode_images")


def versions_in(batches: list[tuple[Any, ...]]) -> list[set[str]]:
    """The versions in each batch of images."""
    return [{clip.version for clip in clips} for clips, _ in batches]


def with_a_key(start: Start, **limits: int) -> tuple[dict[str, str], dict[str, Any]]:
    """The headers of the one key, and the settings with its limits."""
    keys = start.folder / "keys.json"
    secret = create_key(keys, "alice", ["infer", "admin"])
    return {"Authorization": f"Bearer {secret}"}, {"keys_file": keys, **limits}


def over_another_base(start: Start) -> str:
    """A version over a base that is not served."""
    return publish_tuned(start.root, another(start.folder / "other"), start.folder / "delta", seed=0)


async def test_versions_of_one_base_share_batches_and_each_answers_for_itself(
    start: Start, batches: list[tuple[Any, ...]]
) -> None:
    names = [None, *start.published]
    async with start() as service:
        for name in names:
            await service.ask("/match", MATCH, model=name)
        batches.clear()
        for path, body in (("/match", MATCH), ("/classify", CLASSIFY), ("/embed", EMBED)):
            answers = await asyncio.gather(*(service.ask(path, body, model=name) for name in names * 4))
            for name, answer in zip(names * 4, answers, strict=True):
                assert answer["model"]["version"] == (name or start.base)
                assert_of_its_version(answer, start.library)
    assert max(map(len, versions_in(batches))) > 1


async def test_while_another_key_is_active_a_comparison_computes_one_version_after_another(
    start: Start, batches: list[tuple[Any, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ["small", *start.published]
    async with start() as service:
        await service.compare(names)
        monkeypatch.setattr("sds_clip.app.serving.turns.Turns.shared", True)
        monkeypatch.setattr("sds_clip.app.serving.turns.TURN_S", 1e-9)  # one version, at any rate
        batches.clear()
        await service.compare(names)
    assert set(map(len, versions_in(batches))) == {1}


async def test_one_request_is_answered_by_several_versions(
    start: Start, batches: list[tuple[Any, ...]]
) -> None:
    names = ["small", *start.published]
    async with start() as service:
        for path, body in VERBS.items():
            alone = [(await service.ask(path, body, model=name))["model"] for name in names]
            compared = await service.compare(names, path, body)
            assert [answer["model"] for answer in compared] == alone
            for answer in compared:
                assert_of_its_version(answer, start.library)
        batches.clear()
        await service.compare(names)
    assert versions_in(batches) == [{start.base, *start.published}]


async def test_images_of_a_comparison_are_decoded_once(start: Start, calls: Calls) -> None:
    decoded = calls("sds_clip.app.decoder.Decoder.pixels")
    async with start() as service:
        await service.compare(["small", *start.published])
    assert len(decoded) == len(MATCH["images"])


async def test_unknown_model_in_a_comparison_is_the_error_of_its_entry(start: Start) -> None:
    async with start() as service:
        first, unknown, last = await service.compare(["small", "nobody", start.published[0]])
    assert (unknown["name"], unknown["error"]["code"]) == ("nobody", "unknown_model")
    assert unknown["error"]["param"] == "models"
    for answer in (first, last):
        assert_of_its_version(answer, start.library)


@pytest.mark.parametrize("at_once", [True, False], ids=["comparison", "requests at once"])
async def test_versions_that_cannot_be_used_are_refused_by_name_and_the_others_answer(
    start: Start, at_once: bool
) -> None:
    good, damaged, last = start.published
    start.copy()
    start.damage(damaged)
    of_another_base = over_another_base(start)
    names = [good, damaged, of_another_base, last]
    async with start() as service:
        if at_once:
            answers = await service.compare(names)
        else:
            sent = (service.client.post("/match", json={**MATCH, "model": name}) for name in names)
            answers = [answer.json() for answer in await asyncio.gather(*sent)]
    told = [
        answer["model"]["version"] if "model" in answer else answer["error"]["code"] for answer in answers
    ]
    assert told == [good, "version_damaged", "version_unusable", last]
    for answer, name in ((answers[1], damaged), (answers[2], of_another_base)):
        assert name[:12] in answer["error"]["message"]
    for answer in (answers[0], answers[3]):
        assert_of_its_version(answer, start.library)


async def test_version_that_computes_no_numbers_is_the_error_of_its_entry(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    good, broken, _ = start.published
    encode = sds_clip.app.serving.forward.encode_images

    def spoiling(clips: Sequence[Clip], pixels: Tensor) -> Tensor:
        features = encode(clips, pixels).clone()
        features[[clip.version == broken for clip in clips]] = torch.nan
        return features

    async with start() as service:
        for name in (good, broken):
            await service.version(model=name)
        monkeypatch.setattr("sds_clip.app.serving.forward.encode_images", spoiling)
        for path, body in VERBS.items():
            one, spoilt = await service.compare([good, broken], path, body)
            assert_of_its_version(one, start.library)
            assert (spoilt["name"], spoilt["error"]["code"]) == (broken, "internal_error")


async def test_cause_of_an_internal_error_within_a_comparison_is_logged(
    start: Start, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def failing(*_: Any) -> Tensor:
        raise RuntimeError("the cause")

    async with start() as service:
        monkeypatch.setattr("sds_clip.app.serving.forward.encode_images", failing)
        (answer,) = await service.compare(["small"])
    assert answer["error"]["code"] == "internal_error"
    assert "the cause" in caplog.text


async def test_texts_whose_features_are_cached_cost_a_comparison_nothing(start: Start, calls: Calls) -> None:
    admitted = calls("sds_clip.app.serving.engine.Engine.admit")
    async with start() as service:
        for _ in range(2):
            await service.compare(start.published)
    images, texts = len(MATCH["images"]), len(set(MATCH["texts"]))
    assert [costs for _, *costs in admitted] == [[3 * images, 3 * texts], [3 * images, 0]]


async def test_comparison_of_versions_that_were_never_loaded_keeps_to_its_key_s_share_of_loads(
    start: Start,
) -> None:
    headers, settings = with_a_key(start, max_version_loads_per_key=1)
    async with start(**settings) as service:
        body = {**MATCH, "models": start.published}
        answer = await service.client.post("/match/compare", json=body, headers=headers)
    assert [each["model"]["version"] for each in answer.json()["answers"]] == start.published


@pytest.mark.parametrize("path", ["/match", "/classify", "/match/compare", "/classify/compare"])
async def test_request_that_is_refused_loads_no_version(start: Start, path: str, calls: Calls) -> None:
    loaded = calls("sds_clip.app.serving.loading.VersionLoader.load")
    body = MATCH if "match" in path else CLASSIFY
    name = {"models": start.published} if "compare" in path else {"model": start.published[0]}
    async with start(max_images=1) as service:
        images = [base64_of(png(8, 8))] * 2
        answer = await service.client.post(path, json={**body, **name, "images": images})
        assert answer.json()["error"]["code"] == "too_many_images"
    assert loaded == []


async def test_entry_says_when_to_ask_again(start: Start) -> None:
    start.copy()
    of_another_base = over_another_base(start)
    async with start() as service:
        unknown, unusable = await service.compare(["nobody", of_another_base])
    assert "retry_after_s" not in unknown
    assert unusable["error"]["code"] == "version_unusable"
    assert 1 <= unusable["retry_after_s"] <= 30


async def test_comparison_that_exceeds_a_key_s_share_is_admitted_if_nothing_else_is(start: Start) -> None:
    headers, settings = with_a_key(start, max_queue_per_key=8, max_items_per_s_per_key=8)
    async with start(**settings) as service:
        body = {**MATCH, "models": ["small", *start.published]}
        answer = await service.client.post("/match/compare", json=body, headers=headers)
    assert answer.status_code == 200
    assert all("results" in each for each in answer.json()["answers"])


async def test_base_beside_its_version_is_loaded_once(start: Start, calls: Calls) -> None:
    start.copy()
    version = over_another_base(start)
    base = publish(start.folder / "other", start.root, job="import", fence=0).version
    read = calls("sds_clip.app.serving.loading.load_served")
    async with start() as service:
        answers = await service.compare([base, version])
    assert [answer["model"]["version"] for answer in answers] == [base, version]
    assert len(read) == 1


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"models": []}, "models"),
        ({"models": ["small"] * 17}, "models"),
        ({"models": ["small"], "model": "small"}, "model"),
        ({"models": "small"}, "models"),
        ({"models": ["small"], "images": [base64_of(b"no image")]}, "images"),
    ],
)
async def test_a_comparison_that_cannot_be_made_is_refused_as_a_whole(
    start: Start, fields: dict[str, Any], param: str | None
) -> None:
    async with start() as service:
        answer = await service.client.post("/match/compare", json={**MATCH, **fields})
    assert 400 <= answer.status_code < 500
    assert answer.json()["error"]["param"] == param


async def test_multipart_form_may_name_several_models(start: Start) -> None:
    async with start() as service:
        answer = await service.client.post(
            "/match/compare",
            data={"texts": MATCH["texts"], "models": ["small", start.published[0]]},
            files=[("images", ("one.png", png(8, 8)))],
        )
    assert [each["model"]["name"] for each in answer.json()["answers"]] == ["small", start.published[0]]
