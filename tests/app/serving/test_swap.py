"""Hot swap through the poller: what is served, what is reported, and that no answer mixes versions."""

import asyncio
import gc
import logging
import threading
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from sds_clip.app.registry.local_state import LocalState
from sds_clip.app.registry.publish import publish
from sds_clip.app.registry.source import FileReports, ProcessReport
from sds_clip.app.serving.classes import SMALL_SET_PROMPTS, ClassWeights
from sds_clip.app.serving.served_models import ServedModels
from sds_clip.app.store.records import Alias
from sds_clip.models.checkpoints.delta import save_delta
from sds_clip.models.clip.model import Clip
from tests.app.serving.conftest import Start
from tests.app.serving.file_aliases import FileAliases
from tests.app.serving.swapping import (
    CLASSIFY,
    EMBED,
    MATCH,
    Library,
    Versions,
    assert_of_its_version,
    metric,
    publish_tuned,
    serving,
    until,
)
from tests.deltas import tuned_copy

VERBS = {"/match": MATCH, "/classify": CLASSIFY, "/embed": EMBED}


async def test_promoted_version_answers_and_is_named(start: Start) -> None:
    async with start() as service:
        before = await service.ask("/match", MATCH)
        assert before["model"] == {"name": "small", "version": start.base, "generation": 1}
        for generation, version in enumerate(start.published, 1):
            await service.promote(version)
            for path, body in VERBS.items():
                answer = await service.ask(path, body)
                assert answer["model"] == {"name": "default", "version": version, "generation": generation}
                assert_of_its_version(answer, start.library)
        listed = (await service.client.get("/models")).json()["models"]
        assert {model["name"]: model["default"] for model in listed} == {"small": False, "default": True}
        assert (await service.ask("/match", MATCH, model="small"))["model"] == before["model"]


async def test_alias_of_any_name_can_be_asked_for(start: Start) -> None:
    async with start() as service:
        assert await service.refusal(model="canary") == (404, "unknown_model")
        await service.promote(start.published[0], name="canary")
        assert await service.version(model="canary") == start.published[0]
        assert await service.version() == start.base


async def test_removed_alias_is_unknown_and_gives_its_name_back_to_a_reference(start: Start) -> None:
    first, second = start.published[:2]
    async with start() as service:
        for name in ("small", "canary"):
            await service.promote(first, name=name)
        for name in ("canary", "small"):
            service.aliases.remove(name)
        await service.until_served(start.base, name="small")
        assert await service.version(model="small") == start.base
        assert await service.names() == {"small"}
        assert await service.refusal(model="canary") == (404, "unknown_model")
        service.aliases.point("canary", second)
        assert (await service.until_served(second, name="canary"))["generation"] == 3


async def test_each_of_several_rollbacks_finds_its_version_in_memory(start: Start) -> None:
    """After the first rollback, the version that the second one leads to is looked up, and not again later."""
    first, second, third = start.published[:3]
    versions = Versions(start.root)
    moved: list[Alias] = []

    async with start(find_version=versions.find, read_aliases=lambda: moved[-1:]) as service:
        for generation, (version, previous) in enumerate(
            [(first, None), (second, first), (third, second), (second, first)], start=1
        ):
            moved.append(Alias("default", version, generation, previous))
            await service.until(lambda model: model["generation"] == len(moved))
        await until(lambda: versions.found == [first, second, third, first])
        moved.append(Alias("default", first, 5, None))
        assert (await service.until_served(first))["generation"] == 5
        assert_of_its_version(await service.ask("/match", MATCH), start.library)
    assert versions.found == [first, second, third, first]


async def test_same_version_under_another_generation_is_named_so(start: Start) -> None:
    async with start() as service:
        for _ in range(2):
            service.aliases.point("default", start.published[0])
        await service.until(lambda model: model["generation"] == 2)
        assert (await service.ask("/match", MATCH))["model"]["generation"] == 2


async def test_process_that_starts_serves_all_aliases_from_its_first_answer(start: Start) -> None:
    aliases = FileAliases(start.folder / "aliases.json")
    names = ["default", *(f"customer-{number}" for number in range(11))]
    wanted = {name: start.published[number % 3] for number, name in enumerate(names, 1)}
    for name, version in wanted.items():
        aliases.point(name, version)
    async with start(swap_poll_s=60.0) as service:
        assert {name: await service.version(model=name) for name in wanted} == wanted
        assert await service.version() == wanted["default"]


async def test_alias_on_a_reference_that_is_served_needs_no_folder(start: Start, other_clip: Clip) -> None:
    async with start(other_clip, root=start.folder / "none") as service:
        await service.promote(other_clip.version)
        assert await service.version() == other_clip.version


# What fails


async def test_failed_load_leaves_the_old_version_serving_and_says_why(
    start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "sds_clip.app.serving.swap")
    bad, good = start.published[:2]
    start.copy()
    start.damage(bad)
    async with start() as service:
        await service.promote(good)
        service.aliases.point("default", bad)
        status = await service.until_failed()
        assert (status["version"], status["wanted_version"]) == (good, bad)
        failed = status["last_failed_load"]
        assert (failed["version"], failed["generation"], failed["code"]) == (bad, 2, "version_damaged")
        assert "delta.safetensors" in failed["reason"]
        assert str(start.folder) not in failed["reason"], "the server's paths are its own"
        assert_of_its_version(await service.ask("/match", MATCH), start.library)
        metrics = (await service.client.get("/metrics")).text
        assert metric(metrics, 'sds_clip_swaps_total{model="default",result="failed"}') >= 1
        assert metric(metrics, 'sds_clip_swaps_total{model="default",result="swapped"}') == 1
    assert any("delta.safetensors" in record.getMessage() for record in caplog.records)


async def test_version_that_failed_is_not_tried_again_whenever_the_aliases_are_read(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sds_clip.app.serving.swap.FIRST_RETRY_S", 600.0)
    versions = Versions(start.folder / "none")
    aliases = FileAliases(start.folder / "aliases.json")
    readings = 0

    def read() -> Sequence[Alias]:
        nonlocal readings
        readings += 1
        return aliases.read()

    async with start(find_version=versions.find, read_aliases=read) as service:
        aliases.point("default", start.published[0])
        await service.until_failed()
        failed_at = readings
        await until(lambda: readings >= failed_at + 5)
    assert len(versions.found) == 1


async def test_version_that_cannot_be_put_in_place_is_reported_and_tried_again_later(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sds_clip.app.serving.swap.FIRST_RETRY_S", 600.0)
    tried: list[str] = []

    def fail(_: ServedModels, name: str, clip: Clip, generation: int) -> None:
        tried.append(clip.version)
        raise MemoryError("no room")

    monkeypatch.setattr(ServedModels, "replace", fail)
    async with start() as service:
        service.aliases.point("default", start.published[0])
        status = await service.until_failed()
        assert (status["version"], status["last_failed_load"]["code"]) == (None, "internal_error")
        metrics = (await service.client.get("/metrics")).text
        assert metric(metrics, 'sds_clip_swaps_total{model="default",result="failed"}') == 1
    assert tried == [start.published[0]]


async def test_version_that_is_never_loaded_blocks_no_later_one(start: Start) -> None:
    bad, good = start.published[:2]
    versions = Versions(start.root, held=[bad])
    versions.gate.clear()

    async with start(find_version=versions.find) as service:
        service.aliases.point("default", bad)
        await service.until(lambda model: model["loading"])
        await service.promote(good)
        assert await service.version() == good
        versions.gate.set()
        await until(lambda: not any(thread.name == f"load {bad[:12]}" for thread in threading.enumerate()))
        assert await service.version() == good


async def test_first_version_of_an_alias_that_fails_is_shown(start: Start) -> None:
    async with start(root=start.folder / "none") as service:
        service.aliases.point("default", start.published[0])
        status = await service.until_failed()
        assert (status["version"], status["generation"]) == (None, None)
        assert await service.version() == start.base


async def test_without_the_alias_source_serving_goes_on_and_says_so(start: Start) -> None:
    file = start.folder / "aliases.json"

    async with start() as service:
        await service.promote(start.published[0])
        content = file.read_text()
        file.write_text("not JSON")
        assert "JSONDecodeError" in (await service.until_aliases(state="away"))["error"]
        assert metric((await service.client.get("/metrics")).text, "sds_clip_alias_source_up") == 0
        assert await service.version() == start.published[0]
        file.write_text(content)
        await service.promote(start.published[1])
        assert (await service.status())["aliases"]["state"] == "read"


class HangingAliases:
    """A source that answers once and then hangs."""

    def __init__(self, first: list[Alias]) -> None:
        self.first: list[Alias] | None = first
        self.gate = threading.Event()

    def read(self) -> list[Alias]:
        if self.first is not None:
            first, self.first = self.first, None
            return first
        assert self.gate.wait(30)
        return []


async def test_source_that_hangs_holds_nothing_up(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sds_clip.app.serving.swap.READ_TIMEOUT_S", 0.1)
    aliases = HangingAliases([Alias("default", start.published[0], 7)])

    async with start(read_aliases=aliases.read) as service:
        await service.until_aliases(state="away")
        answer = await service.ask("/match", MATCH)
        assert answer["model"]["generation"] == 7
        aliases.gate.set()


# Label sets


async def test_version_is_copied_while_its_label_sets_are_encoded(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoding = threading.Event()
    prepare, keep = ClassWeights.prepare, LocalState.keep

    async def prepare_and_tell(*args: Any, **options: Any) -> None:
        encoding.set()
        await prepare(*args, **options)

    def keep_once_told(state: LocalState, version: str) -> None:
        assert encoding.wait(30)
        keep(state, version)

    monkeypatch.setattr(ClassWeights, "prepare", prepare_and_tell)
    monkeypatch.setattr(LocalState, "keep", keep_once_told)
    async with start() as service:
        await service.promote(start.published[0])


async def test_large_label_set_is_answered_by_the_previous_version_until_it_is_built(start: Start) -> None:
    large = {
        "images": MATCH["images"],
        "labels": [f"label {number}" for number in range(SMALL_SET_PROMPTS + 1)],
        "templates": ["a {}."],
        "top_k": 1,
    }

    options: dict[str, Any] = {"max_batch_size": 8, "class_wait_s": 30}
    async with start(**options) as service:
        old = await service.ask("/classify", large)
        await service.promote(start.published[0])
        answer = await service.ask("/classify", large)
        assert answer["model"] == old["model"]
        for before, now in zip(old["results"], answer["results"], strict=True):
            assert [(found["index"], found["score"]) for found in now["predictions"]] == [
                (found["index"], pytest.approx(found["score"], abs=1e-5)) for found in before["predictions"]
            ]
        async with asyncio.timeout(20):
            while answer["model"]["version"] != start.published[0]:
                answer = await service.ask("/classify", large)
        assert answer["model"]["name"] == "default"


# Several processes


async def test_status_shows_every_process_that_left_a_report(start: Start) -> None:
    reports = FileReports(start.folder / "reports")
    for name in ("one", "two"):
        (start.folder / name).mkdir()

    async with (
        serving(start.folder / "one", [start.library.base], root=start.root, reports=reports) as one,
        serving(start.folder / "two", [start.library.base], root=start.root, reports=reports) as two,
    ):
        await two.promote(start.published[0])

        expected = {"small": start.base}, {"small": start.base, "default": start.published[0]}

        async def are_told() -> bool:
            found = (await one.client.get("/models/status")).json()["processes"]
            served = [{model["name"]: model["version"] for model in each["models"]} for each in found]
            return served == [*expected] and found[0]["process"] != found[1]["process"]

        await until(are_told)


async def test_version_that_shares_no_batches_stands_in_the_status_with_the_reason(
    start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    tuned = tuned_copy(start.library.base, seed=1, trained=lambda module: isinstance(module, nn.Linear))
    empty: dict[str, Any] = {"configuration": {}, "data": {}, "metrics": {}}
    delta = save_delta(start.folder / "delta", start.library.base, tuned, **empty)
    alone = publish(delta, start.root, job="job_2", fence=1, base=start.library.base).version
    async with start() as service:
        await service.promote(start.published[0])
        assert (await service.name_status("default"))["alone"] is None
        assert not caplog.records
        await service.promote(alone)
        reason = (await service.name_status("default"))["alone"]
    assert "tensors besides LayerNorms, such as" in reason
    warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert [alone[:12] in warning and reason in warning for warning in warnings] == [True]
    assert str(start.root) not in warnings[0]


async def test_reports_that_cannot_be_left_or_read_cost_only_themselves(start: Start) -> None:
    class Broken(FileReports):
        def write(self, report: ProcessReport) -> None:
            raise OSError("no place")

        def read(self) -> list[ProcessReport]:
            raise OSError("no place")

    async with start(reports=Broken(start.folder)) as service:
        assert (await service.status())["models"][0]["version"] == start.base


# No mixing


@settings(max_examples=12, derandomize=True, suppress_health_check=list(HealthCheck))
@given(
    steps=st.lists(
        st.one_of(
            st.integers(0, 3).map(lambda number: ("point", number)),
            st.sampled_from([("roll back", 0), ("wait", 0)]),
            st.sampled_from(list(VERBS)).map(lambda path: ("ask", path)),
            st.tuples(st.just("ask all"), st.integers(0, 3)),
        ),
        min_size=5,
        max_size=40,
    )
)
async def test_no_answer_mixes_versions_whatever_is_swapped_meanwhile(
    steps: list[tuple[str, Any]], library: Library, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("mixed")
    versions = list(library.clips)

    async with serving(folder, [library.base], root=library.root, swap_poll_s=0.001) as service:
        asked: list[asyncio.Task[dict[str, Any]]] = []
        for kind, detail in steps:
            if kind == "point":
                service.aliases.point("default", versions[detail])
            elif kind == "roll back" and any(alias.previous for alias in service.aliases.read()):
                service.aliases.roll_back("default")
            elif kind == "ask":
                asked.append(asyncio.create_task(service.ask(detail, VERBS[detail])))
            elif kind == "ask all":
                body = {"model": versions[detail]} if versions[detail] in library.published else {}
                asked += [
                    asyncio.create_task(service.ask(path, {**verb, **body})) for path, verb in VERBS.items()
                ]
            else:
                await service.status()
            await asyncio.sleep(0)
        for answer in await asyncio.gather(*asked):
            assert_of_its_version(answer, library)


def clip_of(version: str) -> "weakref.ref[Clip]":
    """The one in memory, found without holding it."""
    return next(
        weakref.ref(each) for each in gc.get_objects() if type(each) is Clip and each.version == version
    )


async def test_weights_of_versions_that_are_gone_are_freed(small_clip: Clip, tmp_path: Path) -> None:
    root = tmp_path / "versions"
    published = [publish_tuned(root, small_clip, tmp_path / f"d{seed}", seed=10 + seed) for seed in range(4)]

    async with serving(tmp_path, [small_clip], root=root) as service:
        clips = []
        for version in published:
            await service.promote(version)
            await service.version()
            clips.append(clip_of(version))
        gc.collect()
        alive = [clip() is not None for clip in clips]
        assert alive == [False, False, True, True]  # the one before, and the one that is served
