"""A name answers with what was promoted for it, or not at all: starts without the registry, and with damaged files."""

import asyncio
import json
import os
import shutil
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from sds_clip.app.errors import ConfigurationError, FilesOutside
from sds_clip.app.registry.local_state import LocalState
from sds_clip.app.registry.publish import publish
from sds_clip.app.store.records import Alias
from sds_clip.models.atomic import atomic_folder
from sds_clip.models.checkpoints.load import load_clip
from sds_clip.models.clip.model import Clip
from tests.app.serving.file_aliases import FileAliases
from tests.app.serving.swapping import (
    MATCH,
    Library,
    Service,
    Versions,
    assert_of_its_version,
    flip_a_byte,
    make_library,
    serving,
)
from tests.checkpoints import save_tiny_clip
from tests.deltas import save_tuned

WEIGHTS = "delta.safetensors"


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory, small_clip: Clip) -> Library:
    folder = tmp_path_factory.mktemp("library")
    return make_library(folder / "versions", small_clip, folder, 3)


@pytest.fixture
def registry(library: Library, tmp_path: Path) -> Path:
    """The library's versions, for a test to damage."""
    return Path(shutil.copytree(library.root, tmp_path / "versions"))


def go_away(folder: Path) -> None:
    """The aliases cannot be read any more."""
    aliases = folder / "aliases.json"
    if aliases.exists():
        aliases.rename(folder / "aliases.away")
    aliases.write_text("not JSON")


def come_back(folder: Path) -> None:
    """The aliases are as they were."""
    (folder / "aliases.json").unlink()
    if (folder / "aliases.away").exists():
        (folder / "aliases.away").rename(folder / "aliases.json")


def copies(folder: Path) -> set[str]:
    """What is kept of versions by the one process that has run over a folder."""
    (state,) = (folder / "data" / "state").iterdir()
    return {path.name for path in (state / "versions").glob("*")}


async def promoted(service: Service, library: Library, *numbers: int) -> None:
    """Promote versions one after the other, and wait for each."""
    for number in numbers:
        service.aliases.point("default", library.published[number])
        await service.until_served(library.published[number])


async def refusal(service: Service, status: int, **fields: Any) -> str:
    """The code of a /match that is refused."""
    answer = await service.client.post("/match", json={**MATCH, **fields})
    assert answer.status_code == status, answer.text
    assert ("Retry-After" in answer.headers) == (status == 503)
    return str(answer.json()["error"]["code"])


async def assert_not_ready(service: Service, code: str) -> None:
    answer = await service.client.get("/ready")
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, code)


async def test_start_without_the_registry_serves_what_was_promoted_from_the_own_copy(
    library: Library, registry: Path, tmp_path: Path
) -> None:
    async with serving(tmp_path, [library.base]) as service:
        await promoted(service, library, 0, 1)
        assert (await service.client.get("/ready")).json()["aliases"] == "registry"
    go_away(tmp_path)
    shutil.rmtree(registry)
    async with serving(tmp_path, [library.base]) as service:
        answer = await service.ask("/match", MATCH)
        assert answer["model"] == {"name": "default", "version": library.published[1], "generation": 2}
        assert_of_its_version(answer, library)
        ready = await service.client.get("/ready")
        assert (ready.status_code, ready.json()["aliases"]) == (200, "state")
        aliases = (await service.status())["aliases"]
        assert (aliases["state"], aliases["source"]) == ("away", "state")
        assert time.time() - 120 < aliases["read_at"] < time.time()
        assert (await service.name_status("default"))["from_copy"]
        come_back(tmp_path)
        service.aliases.point("default", library.base.version)
        await service.until_served(library.base.version)
        assert (await service.client.get("/ready")).json()["aliases"] == "registry"


async def test_without_registry_and_state_nothing_answers_for_a_name_that_an_alias_may_have(
    library: Library, registry: Path, tmp_path: Path
) -> None:
    go_away(tmp_path)

    async with serving(tmp_path, [library.base]) as service:
        await assert_not_ready(service, "registry_away")
        for name in (None, "default", "prod"):
            assert await refusal(service, 503, model=name) == "registry_away"
        assert (await service.client.get("/models")).json()["models"][0]["default"] is False
        assert (await service.status())["aliases"]["source"] == "none"
        assert (await service.client.get("/health")).status_code == 200
        come_back(tmp_path)
        async with asyncio.timeout(20):
            while (await service.client.get("/ready")).status_code != 200:
                await asyncio.sleep(0.01)
        assert await service.version() == library.base.version
        assert await refusal(service, 404, model="prod") == "unknown_model"


async def test_name_that_was_never_promoted_is_the_operators_model_also_without_the_registry(
    library: Library, registry: Path, tmp_path: Path
) -> None:
    async with serving(tmp_path, [library.base]) as service:
        assert await refusal(service, 404, model="prod") == "unknown_model"
    go_away(tmp_path)
    async with serving(tmp_path, [library.base]) as service:
        assert (await service.client.get("/ready")).status_code == 200
        assert await service.version() == library.base.version
        # It may have been made since.
        assert await refusal(service, 503, model="prod") == "registry_away"


async def test_alias_is_503_and_never_404_while_the_registry_is_away(
    library: Library, registry: Path, tmp_path: Path
) -> None:
    async with serving(tmp_path, [library.base]) as service:
        service.aliases.point("prod", library.published[0])
        await service.until_served(library.published[0], name="prod")
        go_away(tmp_path)
        await service.until_aliases_are("away")
        assert await service.version(model="prod") == library.published[0]
        assert await refusal(service, 503, model="new") == "registry_away"
        assert await refusal(service, 404, model="no/alias") == "unknown_model"


async def test_damaged_file_in_the_registry_is_replaced_by_the_own_copy_at_a_restart(
    library: Library, registry: Path, tmp_path: Path
) -> None:
    version = library.published[0]

    async with serving(tmp_path, [library.base]) as service:
        await promoted(service, library, 0)
        assert not (await service.name_status("default"))["from_copy"]
    flip_a_byte(registry / version / WEIGHTS)
    async with serving(tmp_path, [library.base]) as service:
        answer = await service.ask("/match", MATCH)
        assert (answer["model"]["version"], answer["model"]["generation"]) == (version, 1)
        assert_of_its_version(answer, library)
        assert (await service.name_status("default"))["from_copy"]
        assert (await service.client.get("/ready")).status_code == 200


async def test_without_a_good_copy_the_process_is_not_ready_and_says_why(
    library: Library, registry: Path, tmp_path: Path
) -> None:
    version = library.published[0]

    async with serving(tmp_path, [library.base]) as service:
        await promoted(service, library, 0)
    (state,) = (tmp_path / "data" / "state").iterdir()
    for folder in (registry, state / "versions"):
        flip_a_byte(folder / version / WEIGHTS)
    async with serving(tmp_path, [library.base]) as service:
        answer = await service.client.get("/ready")
        error = answer.json()["error"]
        assert (answer.status_code, error["code"], error["type"]) == (
            503,
            "version_damaged",
            "server_error",
        )
        assert "Retry-After" not in answer.headers, "waiting does not mend it"
        for name in (None, "default", version):
            assert await refusal(service, 409, model=name) == "version_damaged"
        status = await service.name_status("default")
        assert (status["version"], status["wanted_version"]) == (None, version)
        assert status["last_failed_load"]["code"] == "version_damaged"
        assert await service.version(model="small") == library.base.version
        await promoted(service, library, 1)
        assert (await service.client.get("/ready")).status_code == 200


async def test_damaged_copy_is_made_again_from_the_registry(
    library: Library, registry: Path, tmp_path: Path
) -> None:
    version = library.published[0]

    async with serving(tmp_path, [library.base]) as service:
        await promoted(service, library, 0)
    (state,) = (tmp_path / "data" / "state").iterdir()
    flip_a_byte(state / "versions" / version / WEIGHTS)
    async with serving(tmp_path, [library.base]) as service:
        assert await service.version() == version
    assert (state / "versions" / version / WEIGHTS).read_bytes() == (
        registry / version / WEIGHTS
    ).read_bytes()


async def test_running_process_keeps_what_it_serves_where_an_alias_moves_to_a_damaged_version(
    library: Library, registry: Path, tmp_path: Path
) -> None:
    flip_a_byte(registry / library.published[1] / WEIGHTS)

    async with serving(tmp_path, [library.base]) as service:
        await promoted(service, library, 0)
        service.aliases.point("default", library.published[1])
        await service.until(lambda model: model["last_failed_load"] is not None)
        answer = await service.ask("/match", MATCH)
        assert (answer["model"]["version"], answer["model"]["generation"]) == (library.published[0], 1)
    # Its state knows the newer alias: it is not answered with the version before.
    async with serving(tmp_path, [library.base]) as service:
        await assert_not_ready(service, "version_damaged")


async def test_process_whose_version_is_still_loading_answers_with_no_other(
    library: Library, registry: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sds_clip.app.serving.swap.START_TIMEOUT_S", 0.05)
    FileAliases(tmp_path / "aliases.json").point("default", library.published[0])
    versions = Versions(registry)
    versions.gate.clear()

    async with serving(tmp_path, [library.base], find_version=versions.find) as service:
        await assert_not_ready(service, "model_not_ready")
        assert await refusal(service, 503) == "model_not_ready"
        versions.gate.set()
        await service.until_served(library.published[0])


@pytest.mark.parametrize("names_another", [False, True])
async def test_registry_that_knows_less_than_before_is_not_followed(
    library: Library, tmp_path: Path, names_another: bool
) -> None:
    """Another database, or an older copy of it: it has no alias, or an earlier generation."""

    async with serving(tmp_path, [library.base], root=library.root) as service:
        await promoted(service, library, 0, 1)
    state = next((tmp_path / "data" / "state").iterdir()) / "aliases.json"
    known = json.loads(state.read_text())["aliases"]
    (tmp_path / "aliases.json").unlink()
    async with serving(tmp_path, [library.base], root=library.root) as service:
        if names_another:
            service.aliases.point("default", library.base.version)
        answer = await service.ask("/match", MATCH)
        assert answer["model"] == {"name": "default", "version": library.published[1], "generation": 2}
        aliases = (await service.status())["aliases"]
        assert (aliases["state"], aliases["source"]) == ("away", "state")
        assert "RegistryBehind" in aliases["error"]
        assert json.loads(state.read_text())["aliases"] == known
    state.unlink()  # as the error says, to follow this registry
    async with serving(tmp_path, [library.base], root=library.root) as service:
        assert await service.version() == library.base.version


async def test_removal_is_remembered_and_an_older_registry_with_the_alias_is_not_followed(
    library: Library, tmp_path: Path
) -> None:
    version, canary = library.published[:2]
    canaries = {**MATCH, "model": "canary"}
    async with serving(tmp_path, [library.base], root=library.root) as service:
        await promoted(service, library, 0)
        service.aliases.point("canary", canary)
        await service.until_served(canary, name="canary")
        older = (tmp_path / "aliases.json").read_text()
        service.aliases.remove("canary")
        async with asyncio.timeout(20):
            while (await service.client.post("/match", json=canaries)).status_code != 404:
                await asyncio.sleep(0.01)
    (tmp_path / "aliases.json").write_text(older)
    async with serving(tmp_path, [library.base], root=library.root) as service:
        assert (await service.ask("/match", MATCH))["model"]["version"] == version
        assert "generation 1 of the alias canary" in (await service.status())["aliases"]["error"]
        assert (await service.client.post("/match", json=canaries)).status_code == 503
    assert copies(tmp_path) == {version}


async def test_only_versions_of_aliases_and_those_before_are_kept(
    library: Library, registry: Path, tmp_path: Path
) -> None:
    async with serving(tmp_path, [library.base]) as service:
        await promoted(service, library, 0, 1, 2)
        first, second, third = library.published
        assert copies(tmp_path) == {second, third}
        service.aliases.point("canary", first)
        await service.until_served(first, name="canary")
        assert copies(tmp_path) == {first, second, third}


async def test_copies_share_no_file_with_the_registry_and_what_a_crash_left_is_removed(
    library: Library, registry: Path, tmp_path: Path
) -> None:
    version = library.published[0]

    async with serving(tmp_path, [library.base]) as service:
        await promoted(service, library, 0)
        (state,) = (tmp_path / "data" / "state").iterdir()
        for file in (registry / version).iterdir():
            assert not os.path.samefile(file, state / "versions" / version / file.name)
        (state / "versions" / f".{version}.0123").mkdir()
        await promoted(service, library, 1)
        assert copies(tmp_path) == {version, library.published[1]}


async def test_version_over_another_version_is_kept_with_it(small_clip: Clip, tmp_path: Path) -> None:
    root = tmp_path / "versions"
    base = publish(save_tiny_clip(tmp_path / "whole", seed=9), root, job="import", fence=0)
    clip = load_clip(f"local-dir:{base.folder}", device="cpu", precision="float32")
    delta = save_tuned(tmp_path / "delta", clip)
    top = publish(delta, root, job="job_1", fence=1, base=clip).version
    tuned = load_clip(f"local-dir:{root / top}", device="cpu", precision="float32")
    library = Library(root, small_clip, {small_clip.version: small_clip, top: tuned})

    async with serving(tmp_path, [small_clip]) as service:
        await promoted(service, library, 0)
        assert copies(tmp_path) == {top, base.version}
    go_away(tmp_path)
    shutil.rmtree(root)
    async with serving(tmp_path, [small_clip]) as service:
        answer = await service.ask("/match", MATCH)
        assert answer["model"]["version"] == top
        assert_of_its_version(answer, library)


async def test_operators_reference_is_found_again_though_it_is_served_no_more(
    small_clip: Clip, tmp_path: Path
) -> None:
    reference = f"local-dir:{save_tiny_clip(tmp_path / 'other', seed=5)}"
    other = load_clip(reference, device="cpu", precision="float32")

    away = threading.Event()

    def find(version: str) -> str:
        if away.is_set():
            raise ConnectionError
        return reference

    async with serving(tmp_path, [small_clip], find_version=find) as service:
        service.aliases.point("default", other.version)
        await service.until_served(other.version)
    go_away(tmp_path)
    away.set()
    async with serving(tmp_path, [small_clip], find_version=find) as service:
        assert await service.version() == other.version


async def test_state_that_cannot_be_written_stops_no_swap_and_is_told(
    library: Library, registry: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(out: Path) -> Any:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("sds_clip.app.registry.local_state.atomic_folder", full)

    async with serving(tmp_path, [library.base]) as service:
        await promoted(service, library, 0)
        assert "No space left" in (await service.status())["aliases"]["state_error"]
        monkeypatch.setattr("sds_clip.app.registry.local_state.atomic_folder", atomic_folder)
        monkeypatch.setattr("sds_clip.app.registry.local_state.RECORD_EVERY_S", 0.0)
        async with asyncio.timeout(20):
            while (await service.status())["aliases"]["state_error"] is not None:
                await asyncio.sleep(0.01)
        assert copies(tmp_path) == {library.published[0]}


def test_aliases_that_cannot_be_written_leave_no_older_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = LocalState(tmp_path)
    state.record([Alias("default", "0" * 64, 1)])

    def full(file: Path, text: str) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("sds_clip.app.registry.local_state.write_atomic", full)
    state.record([Alias("default", "1" * 64, 2)])
    assert "No space left" in str(state.error)
    state.close()
    again = LocalState(tmp_path)
    assert again.remembered is None
    again.close()


def test_processes_that_share_a_folder_have_a_state_each(tmp_path: Path) -> None:
    alias = Alias("default", "0" * 64, 1)
    first, second = LocalState(tmp_path), LocalState(tmp_path)
    first.record([alias])
    assert second.remembered is None
    first.close()
    again = LocalState(tmp_path)
    assert again.remembered is not None
    assert again.remembered.aliases == (alias,)
    for state in (second, again):
        state.close()


def test_too_many_processes_in_a_folder_are_told_to_use_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sds_clip.app.registry.local_state.MAX_PROCESSES", 2)
    states = [LocalState(tmp_path) for _ in range(2)]
    with pytest.raises(ConfigurationError, match="SDS_CLIP_STATE_DIR"):
        LocalState(tmp_path)
    for state in states:
        state.close()


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"format": 2}', '{"format": 1, "aliases": [{}]}'])
def test_state_that_is_none_is_not_used(tmp_path: Path, content: str) -> None:
    (tmp_path / "aliases.json").write_text(content)
    state = LocalState(tmp_path)
    assert state.remembered is None
    state.close()


def test_copies_of_versions_are_made_and_removed_in_the_state_s_folder_alone(tmp_path: Path) -> None:
    (tmp_path / "victim").mkdir()
    state = LocalState(tmp_path / "state")
    state.note_location("../../victim", tmp_path / "versions")
    state.record([Alias("default", "../../victim", 1, None, 0.0, None)])
    with pytest.raises(FilesOutside):
        state.keep("../../victim")
    assert (tmp_path / "victim").is_dir()
    state.close()
