"""Whole weights made for a download: of allowed bases, one at a time, whoever hangs up meanwhile."""

import asyncio
import logging
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from sds_clip.app.errors import CannotExport, Overloaded
from sds_clip.app.registry import download
from sds_clip.app.registry.download import Downloads
from sds_clip.app.registry.publish import publish
from sds_clip.app.store.records import Version
from sds_clip.models.checkpoints.load import load_clip
from sds_clip.models.clip.model import Clip
from tests.checkpoints import save_tiny_clip
from tests.deltas import save_tuned


@pytest.fixture
def version(small_clip: Clip, tmp_path: Path) -> Version:
    """A published delta."""
    made = publish(
        save_tuned(tmp_path / "delta", small_clip), tmp_path / "versions", job="a", fence=1, base=small_clip
    )
    return Version(made.version, f"versions/{made.version}", made.description, made.size_bytes)


async def test_place_of_a_client_who_has_gone_is_free_when_the_work_has_ended(
    version: Version, small_clip: Clip, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    began, gate = threading.Event(), threading.Event()
    monkeypatch.setattr(download, "export_full", _held(began, gate))
    exports = tmp_path / "exports"

    downloads = Downloads(tmp_path, [small_clip.reference])
    request = asyncio.create_task(downloads.of(version, full=True))
    await asyncio.to_thread(began.wait, 20)
    request.cancel()
    with pytest.raises(asyncio.CancelledError):
        await request
    with pytest.raises(Overloaded):
        await downloads.of(version, full=True)
    assert len(list(exports.iterdir())) == 1
    gate.set()
    async with asyncio.timeout(20):
        while list(exports.iterdir()):
            await asyncio.sleep(0.01)
    made = await downloads.of(version, full=True)
    assert (made.folder / "open_clip_config.json").exists()
    made.holder.close()
    assert list(exports.iterdir()) == []


def test_whole_weights_are_made_of_no_base_that_the_operator_does_not_list(
    version: Version, small_clip: Clip, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(CannotExport), caplog.at_level(logging.ERROR):
        asyncio.run(Downloads(tmp_path, ["ViT-B-32/openai"]).of(version, full=True))
    assert f"Version {small_clip.version[:12]} is {small_clip.reference}, " in caplog.text
    assert list((tmp_path / "exports").iterdir()) == []


def test_whole_weights_are_made_of_a_base_that_is_published_here(tmp_path: Path) -> None:
    versions = tmp_path / "versions"
    whole = publish(save_tiny_clip(tmp_path / "whole", seed=5), versions, job="import", fence=0)
    base = load_clip(f"local-dir:{whole.folder}", device="cpu", precision="float32")
    tuned = publish(save_tuned(tmp_path / "delta", base), versions, job="a", fence=1, base=base)
    version = Version(tuned.version, f"versions/{tuned.version}", {}, tuned.size_bytes)
    made = asyncio.run(Downloads(tmp_path, []).of(version, full=True))
    assert load_clip(f"local-dir:{made.folder}", device="cpu", precision="float32").version == tuned.version
    made.holder.close()


def test_what_killed_processes_have_left_is_removed_at_the_start(tmp_path: Path) -> None:
    """Not what another process may be making."""
    old, new = tmp_path / "exports" / "tmp-old", tmp_path / "exports" / "tmp-new"
    for folder in (old, new):
        (folder / "full").mkdir(parents=True)
    long_ago = time.time() - 2 * 24 * 3600
    os.utime(old, (long_ago, long_ago))
    Downloads(tmp_path, [])
    assert list((tmp_path / "exports").iterdir()) == [new]


def _held(began: threading.Event, gate: threading.Event) -> Callable[[str, Path], Path]:
    export_full = download.export_full

    def export(reference: str, out: Path) -> Path:
        began.set()
        assert gate.wait(20)
        return export_full(reference, out)

    return export
