"""Versions that requests name: loaded once, kept within bounds, and honest while they are not there."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

import httpx
import pytest

from sds_clip.app.keys import create_key
from sds_clip.app.serving.version_cache import MAX_LOADS
from sds_clip.models.checkpoints.load import load_clip
from tests.app.serving.conftest import Start
from tests.app.serving.swapping import (
    CLASSIFY,
    EMBED,
    MATCH,
    TEXTS,
    Versions,
    assert_of_its_version,
    until,
)
from tests.checkpoints import save_tiny_clip

COHERE = {"texts": TEXTS, "input_type": "search_document", "embedding_types": ["float"]}


async def test_named_version_answers_under_its_own_name(start: Start) -> None:
    async with start() as service:
        for version in start.published:
            for path, body in (("/match", MATCH), ("/classify", CLASSIFY), ("/embed", EMBED)):
                answer = await service.ask(path, body, model=version)
                assert answer["model"] == {"name": version, "version": version, "generation": 1}
                assert_of_its_version(answer, start.library)
        assert await service.version() == start.base


async def test_version_that_is_deleted_is_unknown_though_it_was_in_memory(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sds_clip.app.serving.seen_versions.LOOK_UP_EVERY_S", 0.0)
    start.copy()
    name = start.published[0]

    async with start() as service:
        assert await service.version(model=name) == name
        (start.root / name).rename(start.root / f".removing.{name}")
        for _ in range(3):
            assert await service.refusal(model=name) == (404, "unknown_model")


async def test_unknown_version_is_the_same_404_as_an_unknown_model(start: Start) -> None:
    async with start() as service:
        answers = [
            await service.client.post("/match", json={**MATCH, "model": name})
            for name in (
                "0" * 64, "0" * 12, start.published[0][:7], start.published[0].upper(), "nothing",
            )
        ]  # fmt: skip
        assert [answer.status_code for answer in answers] == [404] * 5
        assert len({answer.text for answer in answers}) == 1
        assert answers[0].json()["error"]["code"] == "unknown_model"


async def test_beginning_of_an_id_answers_as_the_whole_id_in_every_request(start: Start) -> None:
    async with start() as service:
        for version in start.library.clips:  # the base is served under a name
            named = {"name": version, "version": version, "generation": 1}
            for path, body in (("/match", MATCH), ("/classify", CLASSIFY), ("/embed", EMBED)):
                assert (await service.ask(path, body, model=version[:8]))["model"] == named
            for path, body in (("/match/compare", MATCH), ("/classify/compare", CLASSIFY)):
                answers = (await service.ask(path, body, models=[version[:12], "0" * 12]))["answers"]
                assert answers[0]["model"] == named
                assert answers[1]["error"]["code"] == "unknown_model"
            openai, cohere = ("/v1/embeddings", {"input": TEXTS}), ("/v2/embed", COHERE)
            for path, body in (openai, cohere):
                models = (version[:63], version)
                short, whole = [await service.ask(path, body, model=model) for model in models]
                for field in ("data", "embeddings"):
                    assert short.get(field) == whole.get(field)
            for model in models:
                assert (await service.client.get(f"/v1/models/{model}")).json()["id"] == version


async def test_beginning_of_several_ids_is_refused_and_lists_them(start: Start) -> None:
    ids = [f"0123abcd{number}" + "0" * 55 for number in range(2)]
    for version in ids:
        (start.folder / "versions" / version).mkdir(parents=True)

    async with start(root=start.folder / "versions") as service:
        answer = await service.client.post("/match", json={**MATCH, "model": "0123abcd"})
        compared = await service.ask("/match/compare", MATCH, models=["0123abcd", "default"])

    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["param"]) == (409, "ambiguous_name", "model")
    assert all(version in error["message"] for version in ids)
    assert compared["answers"][0]["error"]["code"] == "ambiguous_name"
    assert compared["answers"][1]["model"]["version"] == start.base


async def test_name_that_is_served_precedes_the_beginning_of_an_id(start: Start) -> None:
    asked = list[str]()

    def begun(prefix: str, owner: str | None) -> Sequence[str]:
        asked.append(prefix)
        return [start.published[1]]

    name = start.published[1][:8]
    async with start(begun=begun) as service:
        assert await service.version(model=name) == start.published[1]
        assert asked == [name]
        await service.promote(start.published[0], name=name)
        for model in (name, "default", start.published[1]):
            await service.version(model=model)
        assert await service.version(model=name) == start.published[0]
    assert asked == [name]


async def test_beginning_that_cannot_be_looked_up_is_a_503(start: Start) -> None:
    def begun(prefix: str, owner: str | None) -> Sequence[str]:
        raise OSError("away")

    async with start(begun=begun) as service:
        assert await service.refusal(model="0" * 12) == (503, "unavailable")


async def test_many_requests_load_a_version_once(start: Start) -> None:
    versions = Versions(start.root)

    async with start(find_version=versions.find) as service:
        name = start.published[0]
        answers = await asyncio.gather(*(service.ask("/match", MATCH, model=name) for _ in range(12)))
        assert {answer["model"]["version"] for answer in answers} == {name}
    assert versions.found == [name]


async def test_version_still_loading_is_a_503_that_says_when_and_is_kept_once_it_is_there(
    start: Start,
) -> None:
    versions = Versions(start.root)
    versions.gate.clear()
    name = start.published[0]

    async with start(find_version=versions.find, version_wait_s=0.05) as service:
        for _ in range(2):
            assert await service.refusal(model=name) == (503, "version_loading")
        assert await service.version() == start.base  # the others are not held up
        versions.gate.set()
        await until(lambda: service.answers(model=name))
    assert versions.found == [name]


async def test_no_more_than_a_few_versions_are_loaded_at_once(start: Start) -> None:
    versions = Versions(start.root)
    versions.gate.clear()

    async with start(find_version=versions.find, version_wait_s=0.01) as service:
        for number in range(10):
            assert (await service.error(model=f"{number:064x}"))["status"] == 503
        assert len(versions.found) == MAX_LOADS
        versions.gate.set()
        await until(lambda: len(versions.found) >= 10)


@pytest.mark.parametrize("limit", ["count", "bytes"])
async def test_version_used_longest_ago_is_dropped_beyond_a_limit(start: Start, limit: str) -> None:
    one, two, three = start.published
    versions = Versions(start.root)
    # A file is a little larger than its tensors. Each two of the three fit, and no three.
    sizes = [(start.root / each / "delta.safetensors").stat().st_size for each in (one, two)]
    limits = {"max_versions": 2} if limit == "count" else {"max_version_bytes": sum(sizes)}
    async with start(find_version=versions.find, **limits) as service:
        for name in (one, two, one, three, one, two):
            assert await service.version(model=name) == name
    assert versions.found == [one, two, three, two]


async def test_version_that_an_alias_serves_takes_no_place(start: Start) -> None:
    async with start(max_version_bytes=0) as service:
        name = start.published[0]
        await service.promote(name)
        assert await service.version(model=name) == name
        error = await service.error(model=start.published[1])
        assert (error["status"], error["code"]) == (503, "version_unusable")
        assert "SDS_CLIP_MAX_VERSION_BYTES" in error["message"]


async def test_damaged_version_says_so_without_its_path_and_is_not_read_for_every_request(
    start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    name = start.published[0]
    start.copy()
    (start.root / name / "delta.safetensors").unlink()
    versions = Versions(start.root)

    async with start(find_version=versions.find) as service:
        for _ in range(3):
            error = await service.error(model=name)
            assert (error["status"], error["code"]) == (409, "version_damaged")
            assert (error["type"], error["come_back_s"]) == ("invalid_request_error", 0)
            assert str(start.folder) not in str(error)
    assert versions.found == [name]
    assert "delta.safetensors is missing" in caplog.text


async def test_versions_that_cannot_be_looked_up_are_asked_for_again(start: Start) -> None:
    class Away(Versions):
        away = True

        def find(self, version: str) -> Path | None:
            if self.away:
                raise ConnectionError("the database has gone")
            return super().find(version)

    versions = Away(start.root)

    async with start(find_version=versions.find) as service:
        name = start.published[0]
        error = await service.error(model=name)
        assert (error["status"], error["code"]) == (503, "unavailable")
        assert "database" not in str(error)
        versions.away = False
        assert await service.version(model=name) == name


async def test_reference_that_is_not_listed_is_served_by_its_alias_and_not_loaded_for_who_names_it(
    start: Start,
) -> None:
    reference = f"local-dir:{save_tiny_clip(start.folder / 'whole', seed=9)}"
    version = load_clip(reference, device="cpu", precision="float32").version

    async with start(find_version=lambda version: reference) as service:
        assert await service.refusal(model=version) == (503, "version_unusable")
        await service.promote(version)
        assert await service.version(model=version) == version


async def test_whole_version_beside_the_served_ones(start: Start) -> None:
    from sds_clip.app.registry.publish import publish

    root = start.folder / "versions"
    whole = publish(save_tiny_clip(start.folder / "whole", seed=9), root, job="import", fence=0)

    async with start(root=root) as service:
        assert await service.version(model=whole.version) == whole.version


async def test_key_that_asks_for_many_versions_at_once_gets_its_share(start: Start) -> None:
    versions = Versions(start.root)
    keys = start.folder / "keys.json"
    tokens = {name: create_key(keys, name, ["infer", "admin"]) for name in ("alice", "bob")}
    limits = {"keys_file": keys, "max_version_loads_per_key": 2, "version_wait_s": 20.0}

    async with start(find_version=versions.find, **limits) as service:

        async def ask(name: str, version: str) -> httpx.Response:
            headers = {"Authorization": f"Bearer {tokens[name]}"}
            return await service.client.post("/match", json={**MATCH, "model": version}, headers=headers)

        versions.gate.clear()
        one, two, three = start.published
        waiting = [asyncio.create_task(ask("alice", version)) for version in (one, two, one)]
        await until(lambda: len(versions.found) >= 2)
        refused = await ask("alice", three)
        assert (refused.status_code, refused.json()["error"]["code"]) == (429, "key_limit")
        assert "max_version_loads_per_key, which is 2" in refused.text
        assert int(refused.headers["Retry-After"]) >= 1
        another = asyncio.create_task(ask("bob", three))
        await asyncio.sleep(0)
        versions.gate.set()
        assert [(await each).status_code for each in [*waiting, another]] == [200] * 4
        assert (await ask("alice", three)).status_code == 200
