"""What owners see is looked up together and now and then, and not by each request."""

import asyncio
from collections.abc import Collection

import pytest

from sds_clip.app.registry.source import Registry
from sds_clip.app.serving.seen_versions import SeenVersions

EVERY_S = "sds_clip.app.serving.seen_versions.LOOK_UP_EVERY_S"


class Looked:
    """A registry that keeps what it was asked, in place of a loader."""

    def __init__(self, **seen: set[str]) -> None:
        self.seen_by = seen
        self.asked: list[tuple[list[str], str | None]] = []
        self.is_away = False
        self.gate = asyncio.Event()
        self.gate.set()

    async def seen(self, versions: Collection[str], owner: str | None) -> frozenset[str]:
        self.asked.append((sorted(versions), owner))
        await self.gate.wait()
        if self.is_away:
            raise OSError("away")
        return frozenset(self.seen_by[owner or "all"].intersection(versions))


async def test_version_is_looked_up_once_for_each_owner() -> None:
    looked = Looked(alice={"a"}, bob=set())
    seen = SeenVersions(looked)  # type: ignore[arg-type]
    for _ in range(3):
        assert await seen.has("a", "alice")
        assert not await seen.has("a", "bob")
    assert looked.asked.count((["a"], "alice")) == 1
    assert looked.asked.count((["a"], "bob")) == 3  # a version may be published at any time


async def test_versions_are_looked_up_one_after_the_other_and_together_though_requests_are_given_up() -> None:
    looked = Looked(all={"a", "b", "c"})
    seen = SeenVersions(looked)  # type: ignore[arg-type]
    looked.gate.clear()
    first = asyncio.create_task(seen.has("a", None))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    others = [asyncio.create_task(seen.has(version, None)) for version in "bbcd"]
    await asyncio.sleep(0)
    for given_up in (first, others[0]):
        given_up.cancel()
    await asyncio.sleep(0)
    looked.gate.set()
    assert await asyncio.gather(*others[1:]) == [True, True, False]
    assert looked.asked == [(["a"], None), (["b", "c", "d"], None)]
    assert await seen.has("a", None)
    assert len(looked.asked) == 2


async def test_what_is_in_memory_is_looked_up_again_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    looked = Looked(all={"a", "b", "c"})
    seen = SeenVersions(looked)  # type: ignore[arg-type]
    for version in ("a", "b", "c"):
        seen.note(version)
    seen.forget("c")
    monkeypatch.setattr(EVERY_S, 0.0)
    looked.seen_by["all"] = {"a"}
    assert await seen.has("a", None)
    assert looked.asked == [(["a", "b"], None)]
    monkeypatch.setattr(EVERY_S, 60.0)
    assert not await seen.has("b", None)


async def test_others_do_not_wait_while_versions_are_looked_up_again(monkeypatch: pytest.MonkeyPatch) -> None:
    looked = Looked(all={"a", "b"})
    seen = SeenVersions(looked)  # type: ignore[arg-type]
    seen.note("a")
    seen.note("b")
    monkeypatch.setattr(EVERY_S, 0.0)
    looked.gate.clear()
    first = asyncio.create_task(seen.has("a", None))
    await asyncio.sleep(0)
    monkeypatch.setattr(EVERY_S, 60.0)
    assert await asyncio.wait_for(seen.has("b", None), 5)
    assert not first.done()
    looked.gate.set()
    assert await first


async def test_nothing_changes_while_the_registry_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(EVERY_S, 0.0)
    looked = Looked(alice={"a"})
    seen = SeenVersions(looked)  # type: ignore[arg-type]
    assert await seen.has("a", "alice")
    looked.is_away = True
    assert await seen.has("a", "alice")
    with pytest.raises(OSError, match="away"):
        await seen.has("new", "alice")


def test_registry_without_owners_finds_what_it_has() -> None:
    registry = Registry(lambda version: "folder" if version == "a" else None)
    assert registry.seen_among(["a", "b"], "anyone") == {"a"}
