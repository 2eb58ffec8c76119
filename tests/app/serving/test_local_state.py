"""A name answers with what was promoted for it, or not at all: starts without the registry, and with damaged files."""

import json
import os
import shutil
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sds_clip.app.errors import ConfigurationError, FilesOutside
from sds_clip.app.registry.local_state import LocalState
from sds_clip.app.registry.publish import publish
from sds_clip.app.store.records import Alias
from sds_clip.models.atomic import atomic_folder
from sds_clip.models.checkpoints.load import load_clip
from tests.app.serving.conftest import Start, another
from tests.app.serving.file_aliases import FileAliases
from tests.app.serving.swapping import (
    MATCH,
    Service,
    Versions,
    assert_of_its_version,
    flip_a_byte,
    publish_tuned,
    until,
)

WEIGHTS = "delta.safetensors"


@pytest.fixture
def start(start: Start) -> Start:
    """Over versions that a test may damage."""
    start.copy()
    return start


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


def copies(start: Start) -> set[str]:
    """What is kept of versions."""
    return {path.name for path in (start.state / "versions").glob("*")}


async def assert_not_ready(service: Service, code: str) -> None:
    answer = await service.client.get("/ready")
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, code)


async def test_start_without_the_registry_serves_what_was_promoted_from_the_own_copy(start: Start) -> None:
    async with start() as service:
        await service.promote(*start.published[:2])
        assert (await service.client.get("/ready")).json()["aliases"] == "registry"
    go_away(start.folder)
    shutil.rmtree(start.root)
    async with start() as service:
        answer = await service.ask("/match", MATCH)
        assert answer["model"] == {"name": "default", "version": start.published[1], "generation": 2}
        assert_of_its_version(answer, start.library)
        ready = await service.client.get("/ready")
        assert (ready.status_code, ready.json()["aliases"]) == (200, "state")
        aliases = (await service.status())["aliases"]
        assert (aliases["state"], aliases["source"]) == ("away", "state")
        assert time.time() - 120 < aliases["read_at"] < time.time()
        assert (await service.name_status("default"))["from_copy"]
        come_back(start.folder)
        await service.promote(start.base)
        assert (await service.client.get("/ready")).json()["aliases"] == "registry"


async def test_without_registry_and_state_nothing_answers_for_a_name_that_an_alias_may_have(
    start: Start,
) -> None:
    go_away(start.folder)

    async with start() as service:
        await assert_not_ready(service, "registry_away")
        for name in (None, "default", "prod"):
            assert await service.refusal(model=name) == (503, "registry_away")
        assert (await service.client.get("/models")).json()["models"][0]["default"] is False
        assert (await service.status())["aliases"]["source"] == "none"
        assert (await service.client.get("/health")).status_code == 200
        come_back(start.folder)
        await until(service.is_ready)
        assert await service.version() == start.base
        assert await service.refusal(model="prod") == (404, "unknown_model")


async def test_name_that_was_never_promoted_is_the_operators_model_also_without_the_registry(
    start: Start,
) -> None:
    async with start() as service:
        assert await service.refusal(model="prod") == (404, "unknown_model")
    go_away(start.folder)
    async with start() as service:
        assert await service.is_ready()
        assert await service.version() == start.base
        # It may have been made since.
        assert await service.refusal(model="prod") == (503, "registry_away")


async def test_alias_is_503_and_never_404_while_the_registry_is_away(start: Start) -> None:
    async with start() as service:
        await service.promote(start.published[0], name="prod")
        go_away(start.folder)
        await service.until_aliases(state="away")
        assert await service.version(model="prod") == start.published[0]
        assert await service.refusal(model="new") == (503, "registry_away")
        assert await service.refusal(model="no/alias") == (404, "unknown_model")


async def test_without_a_good_copy_the_process_is_not_ready_and_says_why(start: Start) -> None:
    version = start.published[0]
    async with start() as service:
        await service.promote(version)
    for folder in (start.root, start.state / "versions"):
        flip_a_byte(folder / version / WEIGHTS)
    async with start() as service:
        answer = await service.client.get("/ready")
        error = answer.json()["error"]
        assert (answer.status_code, error["type"]) == (503, "server_error")
        assert error["code"] == "version_damaged"
        assert "Retry-After" not in answer.headers, "waiting does not mend it"
        for name in (None, "default", version):
            assert await service.refusal(model=name) == (409, "version_damaged")
        status = await service.name_status("default")
        assert (status["version"], status["wanted_version"]) == (None, version)
        assert status["last_failed_load"]["code"] == "version_damaged"
        assert await service.version(model="small") == start.base
        await service.promote(start.published[1])
        assert await service.is_ready()


async def test_damaged_copy_is_made_again_from_the_registry(start: Start) -> None:
    version = start.published[0]
    async with start() as service:
        await service.promote(version)
    copy, original = (folder / version / WEIGHTS for folder in (start.state / "versions", start.root))
    flip_a_byte(copy)
    async with start() as service:
        assert await service.version() == version
    assert copy.read_bytes() == original.read_bytes()


async def test_running_process_keeps_what_it_serves_where_an_alias_moves_to_a_damaged_version(
    start: Start,
) -> None:
    flip_a_byte(start.root / start.published[1] / WEIGHTS)

    async with start() as service:
        await service.promote(start.published[0])
        service.aliases.point("default", start.published[1])
        await service.until_failed()
        answer = await service.ask("/match", MATCH)
        assert (answer["model"]["version"], answer["model"]["generation"]) == (start.published[0], 1)
    # Its state knows the newer alias: it is not answered with the version before.
    async with start() as service:
        await assert_not_ready(service, "version_damaged")


async def test_process_whose_version_is_still_loading_answers_with_no_other(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sds_clip.app.serving.swap.START_TIMEOUT_S", 0.05)
    FileAliases(start.folder / "aliases.json").point("default", start.published[0])
    versions = Versions(start.root)
    versions.gate.clear()

    async with start(find_version=versions.find) as service:
        await assert_not_ready(service, "model_not_ready")
        assert await service.refusal() == (503, "model_not_ready")
        versions.gate.set()
        await service.until_served(start.published[0])


@pytest.mark.parametrize("names_another", [False, True])
async def test_registry_that_knows_less_than_before_is_not_followed(
    start: Start, names_another: bool
) -> None:
    """Another database, or an older copy of it: it has no alias, or an earlier generation."""

    async with start() as service:
        await service.promote(*start.published[:2])
    state = start.state / "aliases.json"
    known = json.loads(state.read_text())["aliases"]
    (start.folder / "aliases.json").unlink()
    async with start() as service:
        if names_another:
            service.aliases.point("default", start.base)
        answer = await service.ask("/match", MATCH)
        assert answer["model"] == {"name": "default", "version": start.published[1], "generation": 2}
        aliases = (await service.status())["aliases"]
        assert (aliases["state"], aliases["source"]) == ("away", "state")
        assert "RegistryBehind" in aliases["error"]
        assert json.loads(state.read_text())["aliases"] == known
    state.unlink()  # as the error says, to follow this registry
    async with start() as service:
        assert await service.version() == start.base


async def test_removal_is_remembered_and_an_older_registry_with_the_alias_is_not_followed(
    start: Start,
) -> None:
    version, canary = start.published[:2]
    async with start() as service:
        await service.promote(start.published[0])
        await service.promote(canary, name="canary")
        older = (start.folder / "aliases.json").read_text()
        service.aliases.remove("canary")
        await until(lambda: service.lacks("canary"))
        assert await service.refusal(model="canary") == (404, "unknown_model")
    (start.folder / "aliases.json").write_text(older)
    async with start() as service:
        assert (await service.ask("/match", MATCH))["model"]["version"] == version
        assert "generation 1 of the alias canary" in (await service.status())["aliases"]["error"]
        assert not await service.answers(model="canary")
    assert copies(start) == {version}


async def test_only_versions_of_aliases_and_those_before_are_kept(start: Start) -> None:
    async with start() as service:
        await service.promote(*start.published)
        first, second, third = start.published
        assert copies(start) == {second, third}
        await service.promote(first, name="canary")
        assert copies(start) == {first, second, third}


async def test_copies_share_no_file_with_the_registry_and_what_a_crash_left_is_removed(start: Start) -> None:
    version = start.published[0]
    async with start() as service:
        await service.promote(version)
        kept = start.state / "versions"
        for file in (start.root / version).iterdir():
            assert not os.path.samefile(file, kept / version / file.name)
        (kept / f".{version}.0123").mkdir()
        await service.promote(start.published[1])
        assert copies(start) == {version, start.published[1]}


async def test_version_over_another_version_is_kept_with_it(start: Start) -> None:
    whole, root = start.folder / "whole", start.root
    clip = another(whole)
    base = publish(whole, root, job="import", fence=0).version
    top = publish_tuned(root, clip, start.folder / "delta", seed=0)
    tuned = load_clip(f"local-dir:{root / top}", device="cpu", precision="float32")

    async with start() as service:
        await service.promote(top)
        assert copies(start) == {top, base}
    go_away(start.folder)
    shutil.rmtree(root)
    async with start() as service:
        answer = await service.ask("/match", MATCH)
        assert answer["model"]["version"] == top
        assert_of_its_version(
            answer, replace(start.library, clips={start.base: start.library.base, top: tuned})
        )


async def test_operators_reference_is_found_again_though_it_is_served_no_more(start: Start) -> None:
    reference, other = f"local-dir:{start.folder / 'other'}", another(start.folder / "other").version
    away = threading.Event()

    def find(version: str) -> str:
        if away.is_set():
            raise ConnectionError
        return reference

    async with start(find_version=find) as service:
        await service.promote(other)
    go_away(start.folder)
    away.set()
    async with start(find_version=find) as service:
        assert await service.version() == other


async def test_state_that_cannot_be_written_stops_no_swap_and_is_told(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(out: Path) -> Any:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("sds_clip.app.registry.local_state.atomic_folder", full)

    async with start() as service:
        await service.promote(start.published[0])
        assert "No space left" in (await service.status())["aliases"]["state_error"]
        monkeypatch.setattr("sds_clip.app.registry.local_state.atomic_folder", atomic_folder)
        monkeypatch.setattr("sds_clip.app.registry.local_state.RECORD_EVERY_S", 0.0)
        await service.until_aliases(state_error=None)
        assert copies(start) == {start.published[0]}


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
