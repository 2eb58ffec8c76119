"""Requests of different versions in one batch, and one request for several versions."""

import asyncio
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import sds_clip.app.images
import sds_clip.app.serving.engine
import sds_clip.app.serving.forward
import sds_clip.app.serving.loading
from sds_clip.app.keys import create_key
from sds_clip.app.registry.publish import publish
from sds_clip.models.checkpoints.load import load_clip
from sds_clip.models.clip.model import Clip
from tests.app.conftest import base64_of, png
from tests.app.serving.swapping import (
    CLASSIFY,
    EMBED,
    MATCH,
    Library,
    assert_of_its_version,
    flip_a_byte,
    make_library,
    publish_tuned,
    serving,
)
from tests.checkpoints import save_tiny_clip


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory, small_clip: Clip) -> Library:
    folder = tmp_path_factory.mktemp("library")
    return make_library(folder / "versions", small_clip, folder, 3)


@pytest.fixture
def batches(monkeypatch: pytest.MonkeyPatch) -> list[set[str]]:
    """The versions in each batch of images."""
    found: list[set[str]] = []
    encode = sds_clip.app.serving.forward.encode_images

    def noting(clips: Sequence[Clip], pixels: Tensor) -> Tensor:
        found.append({clip.version for clip in clips})
        return encode(clips, pixels)

    monkeypatch.setattr("sds_clip.app.serving.forward.encode_images", noting)
    return found


async def test_versions_of_one_base_share_batches_and_each_answers_for_itself(
    library: Library, tmp_path: Path, batches: list[set[str]]
) -> None:
    names = [None, *library.published]
    async with serving(tmp_path, [library.base], root=library.root) as service:
        for name in names:
            await service.ask("/match", MATCH, model=name)
        batches.clear()
        for path, body in (("/match", MATCH), ("/classify", CLASSIFY), ("/embed", EMBED)):
            answers = await asyncio.gather(*(service.ask(path, body, model=name) for name in names * 4))
            for name, answer in zip(names * 4, answers, strict=True):
                assert answer["model"]["version"] == (name or library.base.version)
                assert_of_its_version(answer, library)
    assert max(map(len, batches)) > 1


async def test_while_another_key_is_active_a_comparison_computes_one_version_after_another(
    library: Library, tmp_path: Path, batches: list[set[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ["small", *library.published]
    async with serving(tmp_path, [library.base], root=library.root) as service:
        await service.ask("/match/compare", MATCH, models=names)
        monkeypatch.setattr("sds_clip.app.serving.turns.Turns.shared", True)
        monkeypatch.setattr("sds_clip.app.serving.turns.TURN_S", 1e-9)  # one version, at any rate
        batches.clear()
        await service.ask("/match/compare", MATCH, models=names)
    assert set(map(len, batches)) == {1}


async def test_one_request_is_answered_by_several_versions(
    library: Library, tmp_path: Path, batches: list[set[str]]
) -> None:
    names = ["small", *library.published]
    async with serving(tmp_path, [library.base], root=library.root) as service:
        for path, body in (("/match", MATCH), ("/classify", CLASSIFY)):
            alone = [await service.ask(path, body, model=name) for name in names]
            batches.clear()
            compared = await service.ask(f"{path}/compare", body, models=names)
            assert [answer["model"] for answer in compared["answers"]] == [
                answer["model"] for answer in alone
            ]
            for answer in compared["answers"]:
                assert_of_its_version(answer, library)
        batches.clear()
        await service.ask("/match/compare", MATCH, models=names)
    assert batches == [{library.base.version, *library.published}]


async def test_images_of_a_comparison_are_decoded_once(
    library: Library, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded = []
    pixels = sds_clip.app.images.Decoder.pixels

    async def counting(self: Any, file: Any, clip: Clip, took: Any) -> Tensor:
        decoded.append(file)
        return await pixels(self, file, clip, took)

    monkeypatch.setattr("sds_clip.app.images.Decoder.pixels", counting)
    async with serving(tmp_path, [library.base], root=library.root) as service:
        await service.ask("/match/compare", MATCH, models=["small", *library.published])
    assert len(decoded) == len(MATCH["images"])


async def test_unknown_model_in_a_comparison_is_the_error_of_its_entry(
    library: Library, tmp_path: Path
) -> None:
    async with serving(tmp_path, [library.base], root=library.root) as service:
        first, unknown, last = (
            await service.ask("/match/compare", MATCH, models=["small", "nobody", library.published[0]])
        )["answers"]
    assert (unknown["name"], unknown["error"]["code"]) == ("nobody", "unknown_model")
    assert unknown["error"]["param"] == "models"
    for answer in (first, last):
        assert_of_its_version(answer, library)


@pytest.mark.parametrize("at_once", [True, False], ids=["comparison", "requests at once"])
async def test_versions_that_cannot_be_used_are_refused_by_name_and_the_others_answer(
    library: Library, tmp_path: Path, at_once: bool
) -> None:
    root = tmp_path / "versions"
    shutil.copytree(library.root, root)
    good, damaged, last = library.published
    flip_a_byte(root / damaged / "delta.safetensors")
    elsewhere = load_clip(str(save_tiny_clip(tmp_path / "other", seed=9)), device="cpu", precision="float32")
    of_another_base = publish_tuned(root, elsewhere, tmp_path / "delta", seed=0)
    names = [good, damaged, of_another_base, last]
    async with serving(tmp_path, [library.base], root=root) as service:
        if at_once:
            answers = (await service.ask("/match/compare", MATCH, models=names))["answers"]
        else:
            sent = (service.client.post("/match", json={**MATCH, "model": name}) for name in names)
            answers = [answer.json() for answer in await asyncio.gather(*sent)]
    assert [answer["model"]["version"] if "model" in answer else answer["error"]["code"] for answer in answers] == [
        good, "version_damaged", "version_unusable", last
    ]  # fmt: skip
    for answer, name in ((answers[1], damaged), (answers[2], of_another_base)):
        assert name[:12] in answer["error"]["message"]
    for answer in (answers[0], answers[3]):
        assert_of_its_version(answer, library)


async def test_version_that_computes_no_numbers_is_the_error_of_its_entry(
    library: Library, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    good, broken, _ = library.published
    encode = sds_clip.app.serving.forward.encode_images

    def spoiling(clips: Sequence[Clip], pixels: Tensor) -> Tensor:
        features = encode(clips, pixels).clone()
        features[[clip.version == broken for clip in clips]] = torch.nan
        return features

    async with serving(tmp_path, [library.base], root=library.root) as service:
        for name in (good, broken):
            await service.version(model=name)
        monkeypatch.setattr("sds_clip.app.serving.forward.encode_images", spoiling)
        for path, body in (("/match/compare", MATCH), ("/classify/compare", CLASSIFY)):
            one, spoilt = (await service.ask(path, body, models=[good, broken]))["answers"]
            assert_of_its_version(one, library)
            assert (spoilt["name"], spoilt["error"]["code"]) == (broken, "internal_error")


async def test_cause_of_an_internal_error_within_a_comparison_is_logged(
    library: Library, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def failing(*_: Any) -> Tensor:
        raise RuntimeError("the cause")

    async with serving(tmp_path, [library.base], root=library.root) as service:
        monkeypatch.setattr("sds_clip.app.serving.forward.encode_images", failing)
        (answer,) = (await service.ask("/match/compare", MATCH, models=["small"]))["answers"]
    assert answer["error"]["code"] == "internal_error"
    assert "the cause" in caplog.text


async def test_texts_whose_features_are_cached_cost_a_comparison_nothing(
    library: Library, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    costs = []
    admit = sds_clip.app.serving.engine.Engine.admit

    def noting(self: Any, images: int, texts: int, **options: Any) -> Any:
        costs.append((images, texts))
        return admit(self, images, texts, **options)

    monkeypatch.setattr("sds_clip.app.serving.engine.Engine.admit", noting)
    async with serving(tmp_path, [library.base], root=library.root) as service:
        for _ in range(2):
            await service.ask("/match/compare", MATCH, models=library.published)
    images, texts = len(MATCH["images"]), len(set(MATCH["texts"]))
    assert costs == [(3 * images, 3 * texts), (3 * images, 0)]


async def test_comparison_of_versions_that_were_never_loaded_keeps_to_its_key_s_share_of_loads(
    library: Library, tmp_path: Path
) -> None:
    keys = tmp_path / "keys.json"
    headers = {"Authorization": f"Bearer {create_key(keys, 'alice', ['infer', 'admin'])}"}
    limits = {"keys_file": keys, "max_version_loads_per_key": 1}
    async with serving(tmp_path, [library.base], root=library.root, **limits) as service:
        answer = await service.client.post(
            "/match/compare", json={**MATCH, "models": library.published}, headers=headers
        )
    assert [each["model"]["version"] for each in answer.json()["answers"]] == library.published


@pytest.mark.parametrize("path", ["/match", "/classify", "/match/compare", "/classify/compare"])
async def test_request_that_is_refused_loads_no_version(
    library: Library, tmp_path: Path, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = []
    load = sds_clip.app.serving.loading.VersionLoader.load

    async def noting(self: Any, version: str, **options: Any) -> Clip:
        loaded.append(version)
        return await load(self, version, **options)

    monkeypatch.setattr("sds_clip.app.serving.loading.VersionLoader.load", noting)
    body = MATCH if "match" in path else CLASSIFY
    name = {"models": library.published} if "compare" in path else {"model": library.published[0]}
    async with serving(tmp_path, [library.base], root=library.root, max_images=1) as service:
        images = [base64_of(png(8, 8))] * 2
        answer = await service.client.post(path, json={**body, **name, "images": images})
        assert answer.json()["error"]["code"] == "too_many_images"
    assert loaded == []


async def test_entry_says_when_to_ask_again(library: Library, tmp_path: Path) -> None:
    elsewhere = load_clip(str(save_tiny_clip(tmp_path / "other", seed=9)), device="cpu", precision="float32")
    root = tmp_path / "versions"
    of_another_base = publish_tuned(root, elsewhere, tmp_path / "delta", seed=0)
    async with serving(tmp_path, [library.base], root=root) as service:
        unknown, unusable = (await service.ask("/match/compare", MATCH, models=["nobody", of_another_base]))[
            "answers"
        ]
    assert "retry_after_s" not in unknown
    assert unusable["error"]["code"] == "version_unusable"
    assert 1 <= unusable["retry_after_s"] <= 30


async def test_comparison_that_exceeds_a_key_s_share_is_admitted_if_nothing_else_is(
    library: Library, tmp_path: Path
) -> None:
    keys = tmp_path / "keys.json"
    headers = {"Authorization": f"Bearer {create_key(keys, 'alice', ['infer', 'admin'])}"}
    limits = {"keys_file": keys, "max_queue_per_key": 8, "max_items_per_s_per_key": 8}
    async with serving(tmp_path, [library.base], root=library.root, **limits) as service:
        answer = await service.client.post(
            "/match/compare", json={**MATCH, "models": ["small", *library.published]}, headers=headers
        )
    assert answer.status_code == 200
    assert all("results" in each for each in answer.json()["answers"])


async def test_base_beside_its_version_is_loaded_once(
    library: Library, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "versions"
    base_folder = save_tiny_clip(tmp_path / "whole", seed=9)
    base = publish(base_folder, root, job="import", fence=0).version
    whole = load_clip(str(base_folder), device="cpu", precision="float32")
    version = publish_tuned(root, whole, tmp_path / "delta", seed=0)
    read = []
    load = sds_clip.app.serving.loading.load_clip

    def noting(reference: str, **options: Any) -> Clip:
        read.append(reference)
        return load(reference, **options)

    monkeypatch.setattr("sds_clip.app.serving.loading.load_clip", noting)
    async with serving(tmp_path, [library.base], root=root) as service:
        answers = (await service.ask("/match/compare", MATCH, models=[base, version]))["answers"]
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
    library: Library, tmp_path: Path, fields: dict[str, Any], param: str | None
) -> None:
    async with serving(tmp_path, [library.base], root=library.root) as service:
        answer = await service.client.post("/match/compare", json={**MATCH, **fields})
    assert 400 <= answer.status_code < 500
    assert answer.json()["error"]["param"] == param


async def test_multipart_form_may_name_several_models(library: Library, tmp_path: Path) -> None:
    async with serving(tmp_path, [library.base], root=library.root) as service:
        answer = await service.client.post(
            "/match/compare",
            data={"texts": MATCH["texts"], "models": ["small", library.published[0]]},
            files=[("images", ("one.png", png(8, 8)))],
        )
    assert [each["model"]["name"] for each in answer.json()["answers"]] == ["small", library.published[0]]
