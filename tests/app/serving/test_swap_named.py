"""Versions that requests name: loaded once, kept within bounds, and honest while they are not there."""

import asyncio
import shutil
from collections.abc import Sequence
from pathlib import Path

import httpx
import pytest

from sds_clip.app.keys import create_key
from sds_clip.app.serving.version_cache import MAX_LOADS
from sds_clip.models.checkpoints.load import load_clip
from sds_clip.models.clip.model import Clip
from tests.app.serving.swapping import (
    CLASSIFY,
    EMBED,
    MATCH,
    TEXTS,
    Library,
    Versions,
    assert_of_its_version,
    make_library,
    serving,
)
from tests.checkpoints import save_tiny_clip

COHERE = {"texts": TEXTS, "input_type": "search_document", "embedding_types": ["float"]}


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory, small_clip: Clip) -> Library:
    folder = tmp_path_factory.mktemp("library")
    return make_library(folder / "versions", small_clip, folder, 3)


async def test_named_version_answers_under_its_own_name(library: Library, tmp_path: Path) -> None:
    async with serving(tmp_path, [library.base], root=library.root) as service:
        for version in library.published:
            for path, body in (("/match", MATCH), ("/classify", CLASSIFY), ("/embed", EMBED)):
                answer = await service.ask(path, body, model=version)
                assert answer["model"] == {"name": version, "version": version, "generation": 1}
                assert_of_its_version(answer, library)
        assert await service.version() == library.base.version


async def test_version_that_is_deleted_is_unknown_though_it_was_in_memory(
    library: Library, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sds_clip.app.serving.seen_versions.LOOK_UP_EVERY_S", 0.0)
    shutil.copytree(library.root, tmp_path / "versions")
    name = library.published[0]

    async with serving(tmp_path, [library.base]) as service:
        assert await service.version(model=name) == name
        (tmp_path / "versions" / name).rename(tmp_path / "versions" / f".removing.{name}")
        for _ in range(3):
            answer = await service.client.post("/match", json={**MATCH, "model": name})
            assert (answer.status_code, answer.json()["error"]["code"]) == (404, "unknown_model")


async def test_unknown_version_is_the_same_404_as_an_unknown_model(library: Library, tmp_path: Path) -> None:
    async with serving(tmp_path, [library.base], root=library.root) as service:
        answers = [
            await service.client.post("/match", json={**MATCH, "model": name})
            for name in (
                "0" * 64, "0" * 12, library.published[0][:7], library.published[0].upper(), "nothing",
            )
        ]  # fmt: skip
        assert [answer.status_code for answer in answers] == [404] * 5
        assert len({answer.text for answer in answers}) == 1
        assert answers[0].json()["error"]["code"] == "unknown_model"


async def test_beginning_of_an_id_answers_as_the_whole_id_in_every_request(
    library: Library, tmp_path: Path
) -> None:
    async with serving(tmp_path, [library.base], root=library.root) as service:
        for version in library.clips:  # the base is served under a name
            named = {"name": version, "version": version, "generation": 1}
            for path, body in (("/match", MATCH), ("/classify", CLASSIFY), ("/embed", EMBED)):
                assert (await service.ask(path, body, model=version[:8]))["model"] == named
            for path, body in (("/match/compare", MATCH), ("/classify/compare", CLASSIFY)):
                answers = (await service.ask(path, body, models=[version[:12], "0" * 12]))["answers"]
                assert answers[0]["model"] == named
                assert answers[1]["error"]["code"] == "unknown_model"
            openai, cohere = ("/v1/embeddings", {"input": TEXTS}), ("/v2/embed", COHERE)
            for path, body in (openai, cohere):
                short, whole = [
                    await service.ask(path, body, model=model) for model in (version[:63], version)
                ]
                assert [short.get("data"), short.get("embeddings")] == [
                    whole.get("data"),
                    whole.get("embeddings"),
                ]
            for model in (version[:63], version):
                assert (await service.client.get(f"/v1/models/{model}")).json()["id"] == version


async def test_beginning_of_several_ids_is_refused_and_lists_them(library: Library, tmp_path: Path) -> None:
    ids = [f"0123abcd{number}" + "0" * 55 for number in range(2)]
    for version in ids:
        (tmp_path / "versions" / version).mkdir(parents=True)

    async with serving(tmp_path, [library.base]) as service:
        answer = await service.client.post("/match", json={**MATCH, "model": "0123abcd"})
        compared = await service.ask("/match/compare", MATCH, models=["0123abcd", "default"])

    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["param"]) == (409, "ambiguous_name", "model")
    assert all(version in error["message"] for version in ids)
    assert compared["answers"][0]["error"]["code"] == "ambiguous_name"
    assert compared["answers"][1]["model"]["version"] == library.base.version


async def test_name_that_is_served_precedes_the_beginning_of_an_id(library: Library, tmp_path: Path) -> None:
    asked = list[str]()

    def begun(prefix: str, owner: str | None) -> Sequence[str]:
        asked.append(prefix)
        return [library.published[1]]

    name = library.published[1][:8]
    async with serving(tmp_path, [library.base], root=library.root, begun=begun) as service:
        assert await service.version(model=name) == library.published[1]
        assert asked == [name]
        service.aliases.point(name, library.published[0])
        await service.until_served(library.published[0], name=name)
        for model in (name, "default", library.published[1]):
            await service.version(model=model)
        assert await service.version(model=name) == library.published[0]
    assert asked == [name]


async def test_beginning_that_cannot_be_looked_up_is_a_503(library: Library, tmp_path: Path) -> None:
    def begun(prefix: str, owner: str | None) -> Sequence[str]:
        raise OSError("away")

    async with serving(tmp_path, [library.base], root=library.root, begun=begun) as service:
        answer = await service.client.post("/match", json={**MATCH, "model": "0" * 12})
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "unavailable")


async def test_many_requests_load_a_version_once(library: Library, tmp_path: Path) -> None:
    versions = Versions(library.root)

    async with serving(tmp_path, [library.base], find_version=versions.find) as service:
        name = library.published[0]
        answers = await asyncio.gather(*(service.ask("/match", MATCH, model=name) for _ in range(12)))
        assert {answer["model"]["version"] for answer in answers} == {name}
    assert versions.found == [name]


async def test_version_still_loading_is_a_503_that_says_when_and_is_kept_once_it_is_there(
    library: Library, tmp_path: Path
) -> None:
    versions = Versions(library.root)
    versions.gate.clear()
    name = library.published[0]

    async with serving(tmp_path, [library.base], find_version=versions.find, version_wait_s=0.05) as service:
        for _ in range(2):
            answer = await service.client.post("/match", json={**MATCH, "model": name})
            assert (answer.status_code, answer.json()["error"]["code"]) == (503, "version_loading")
            assert int(answer.headers["Retry-After"]) >= 1
        assert await service.version() == library.base.version  # the others are not held up
        versions.gate.set()
        async with asyncio.timeout(10):
            while answer.status_code != 200:
                answer = await service.client.post("/match", json={**MATCH, "model": name})
    assert versions.found == [name]


async def test_no_more_than_a_few_versions_are_loaded_at_once(library: Library, tmp_path: Path) -> None:
    versions = Versions(library.root)
    versions.gate.clear()

    async with serving(tmp_path, [library.base], find_version=versions.find, version_wait_s=0.01) as service:
        for number in range(10):
            name = f"{number:064x}"
            answer = await service.client.post("/match", json={**MATCH, "model": name})
            assert answer.status_code == 503
        assert len(versions.found) == MAX_LOADS
        versions.gate.set()
        async with asyncio.timeout(10):
            while len(versions.found) < 10:  # the others had to wait
                await asyncio.sleep(0.01)


async def ask_in_turn(
    folder: Path, versions: Versions, base: Clip, names: Sequence[str], **limits: int
) -> None:
    async with serving(folder, [base], find_version=versions.find, **limits) as service:
        for name in names:
            assert await service.version(model=name) == name


async def test_version_used_longest_ago_is_dropped_beyond_the_count(library: Library, tmp_path: Path) -> None:
    one, two, three = library.published
    versions = Versions(library.root)
    turn = [one, two, one, three, one, two]
    await ask_in_turn(tmp_path, versions, library.base, turn, max_versions=2)
    assert versions.found == [one, two, three, two]


async def test_version_used_longest_ago_is_dropped_beyond_the_bytes(library: Library, tmp_path: Path) -> None:
    one, two, three = library.published
    versions = Versions(library.root)
    size = (library.root / one / "delta.safetensors").stat().st_size  # a little more than its tensors
    turn = [one, two, one, three, one, two]
    await ask_in_turn(tmp_path, versions, library.base, turn, max_version_bytes=2 * size)
    assert versions.found == [one, two, three, two]


async def test_version_that_an_alias_serves_takes_no_place(library: Library, tmp_path: Path) -> None:
    async with serving(tmp_path, [library.base], root=library.root, max_version_bytes=0) as service:
        name = library.published[0]
        service.aliases.point("default", name)
        await service.until_served(name)
        assert await service.version(model=name) == name
        refused = await service.client.post("/match", json={**MATCH, "model": library.published[1]})
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "version_unusable")
        assert "SDS_CLIP_MAX_VERSION_BYTES" in refused.text


async def test_damaged_version_says_so_without_its_path_and_is_not_read_for_every_request(
    library: Library, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    name = library.published[0]
    shutil.copytree(library.root / name, tmp_path / "versions" / name)
    (tmp_path / "versions" / name / "delta.safetensors").unlink()
    versions = Versions(tmp_path / "versions")

    async with serving(tmp_path, [library.base], find_version=versions.find) as service:
        for _ in range(3):
            answer = await service.client.post("/match", json={**MATCH, "model": name})
            assert (answer.status_code, answer.json()["error"]["code"]) == (409, "version_damaged")
            assert answer.json()["error"]["type"] == "invalid_request_error"
            assert str(tmp_path) not in answer.text
            assert "Retry-After" not in answer.headers  # sending it again is of no use
    assert versions.found == [name]
    assert "delta.safetensors is missing" in caplog.text


async def test_versions_that_cannot_be_looked_up_are_asked_for_again(
    library: Library, tmp_path: Path
) -> None:
    class Away(Versions):
        away = True

        def find(self, version: str) -> Path | None:
            if self.away:
                raise ConnectionError("the database has gone")
            return super().find(version)

    versions = Away(library.root)

    async with serving(tmp_path, [library.base], find_version=versions.find) as service:
        name = library.published[0]
        answer = await service.client.post("/match", json={**MATCH, "model": name})
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "unavailable")
        assert "database" not in answer.text
        versions.away = False
        assert await service.version(model=name) == name


async def test_reference_that_is_not_listed_is_served_by_its_alias_and_not_loaded_for_who_names_it(
    library: Library, tmp_path: Path
) -> None:
    reference = f"local-dir:{save_tiny_clip(tmp_path / 'whole', seed=9)}"
    version = load_clip(reference, device="cpu", precision="float32").version

    async with serving(tmp_path, [library.base], find_version=lambda version: reference) as service:
        refused = await service.client.post("/match", json={**MATCH, "model": version})
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "version_unusable")
        service.aliases.point("default", version)
        await service.until_served(version)
        assert await service.version(model=version) == version


async def test_whole_version_beside_the_served_ones(library: Library, tmp_path: Path) -> None:
    from sds_clip.app.registry.publish import publish

    root = tmp_path / "versions"
    whole = publish(save_tiny_clip(tmp_path / "whole", seed=9), root, job="import", fence=0)

    async with serving(tmp_path, [library.base], root=root) as service:
        assert await service.version(model=whole.version) == whole.version


async def test_key_that_asks_for_many_versions_at_once_gets_its_share(
    library: Library, tmp_path: Path
) -> None:
    versions = Versions(library.root)
    keys = tmp_path / "keys.json"
    tokens = {name: create_key(keys, name, ["infer", "admin"]) for name in ("alice", "bob")}
    limits = {"keys_file": keys, "max_version_loads_per_key": 2, "version_wait_s": 20.0}

    async with serving(tmp_path, [library.base], find_version=versions.find, **limits) as service:

        async def ask(name: str, version: str) -> httpx.Response:
            headers = {"Authorization": f"Bearer {tokens[name]}"}
            return await service.client.post("/match", json={**MATCH, "model": version}, headers=headers)

        versions.gate.clear()
        one, two, three = library.published
        waiting = [asyncio.create_task(ask("alice", version)) for version in (one, two, one)]
        async with asyncio.timeout(10):
            while len(versions.found) < 2:
                await asyncio.sleep(0.01)
        refused = await ask("alice", three)
        assert (refused.status_code, refused.json()["error"]["code"]) == (429, "key_limit")
        assert "max_version_loads_per_key, which is 2" in refused.text
        assert int(refused.headers["Retry-After"]) >= 1
        another = asyncio.create_task(ask("bob", three))
        await asyncio.sleep(0)
        versions.gate.set()
        assert [(await each).status_code for each in [*waiting, another]] == [200] * 4
        assert (await ask("alice", three)).status_code == 200
