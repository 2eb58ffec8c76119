"""Publishing into a real folder: whole or not at all, under the hash of the weights, and never again otherwise."""

import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from sds_clip.app.registry.golden_file import read_golden
from sds_clip.app.registry.manifest import MANIFEST_FILE, VersionError, read_manifest, verify
from sds_clip.app.registry.publish import PublishedVersion, publish, read_published
from sds_clip.app.removal import remove_version_leftovers
from sds_clip.models.checkpoints.delta import save_delta
from sds_clip.models.checkpoints.load import load_clip
from sds_clip.models.clip.golden import Golden
from sds_clip.models.clip.model import Clip
from sds_clip.models.errors import CheckpointError
from tests.checkpoints import save_tiny_clip
from tests.deltas import save_tuned, tuned_copy

CRASHES = """
import resource, signal, sys
from pathlib import Path
from sds_clip.app.registry.publish import publish
signal.signal(signal.SIGXFSZ, signal.SIG_DFL)  # the kernel kills at the byte that is too many
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
publish(Path(sys.argv[1]), Path(sys.argv[2]), job="job_7", fence=3)
"""


@pytest.fixture(scope="module")
def base(tiny_folder: Path) -> Clip:
    return load_clip(f"local-dir:{tiny_folder}", precision="float32")


@pytest.fixture(scope="module")
def delta(base: Clip, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tuned(tmp_path_factory.mktemp("trained") / "delta", base)


def contents(folder: Path) -> dict[str, tuple[bytes, int]]:
    return {file.name: (file.read_bytes(), file.stat().st_ino) for file in folder.iterdir()}


def test_delta_is_published_under_the_version_that_its_weights_have(
    base: Clip, delta: Path, tmp_path: Path
) -> None:
    published = publish(delta, tmp_path / "versions", job="job_1", fence=1)
    folder = tmp_path / "versions" / load_clip(str(delta)).version
    assert (published.folder, published.version) == (folder, folder.name)
    assert (published.kind, published.base_version) == ("delta", base.version)
    assert published.description["metrics"] == {"group": 0.25}
    assert published.size_bytes == sum(file.stat().st_size for file in delta.iterdir())
    assert load_clip(str(folder)).version == published.version
    assert [path.name for path in (tmp_path / "versions").iterdir()] == [published.version]


def test_loaded_base_gives_the_same_version(base: Clip, delta: Path, tmp_path: Path) -> None:
    without = publish(delta, tmp_path / "a", job="job_1", fence=1)
    given = publish(delta, tmp_path / "b", job="job_1", fence=1, base=base)
    assert given.version == without.version


def test_whole_weights_are_published_with_golden_inputs(
    base: Clip, tiny_folder: Path, tmp_path: Path
) -> None:
    published = publish(tiny_folder, tmp_path, job="import", fence=0)
    assert (published.version, published.kind, published.base_version) == (base.version, "full", None)
    assert published.description["quick_gelu"] is False
    assert published.description["preprocess"]["resize_mode"] == "shortest"
    golden, own = read_golden(published.folder), Golden.of(base)
    assert torch.equal(golden.image_features, own.image_features)
    assert torch.equal(golden.text_features, own.text_features)
    assert load_clip(f"local-dir:{published.folder}").version == base.version


def test_published_version_is_left_as_it_is(base: Clip, delta: Path, tmp_path: Path) -> None:
    first = publish(delta, tmp_path, job="job_1", fence=1, base=base)
    before = contents(first.folder)
    again = publish(delta, tmp_path, job="job_2", fence=9, base=base)
    assert again == first
    assert contents(first.folder) == before
    assert read_manifest(first.folder).job == "job_1"


def test_damaged_version_is_replaced(base: Clip, delta: Path, tmp_path: Path) -> None:
    folder = publish(delta, tmp_path, job="job_1", fence=1, base=base).folder
    whole = (folder / "golden.safetensors").read_bytes()
    (folder / "golden.safetensors").write_bytes(b"")
    again = publish(delta, tmp_path, job="job_1", fence=2, base=base)
    assert again.folder == folder
    assert (folder / "golden.safetensors").read_bytes() == whole
    verify(folder, again.version)
    remove_version_leftovers(tmp_path, held=lambda jobs: {})
    assert [path.name for path in tmp_path.iterdir()] == [folder.name]


def test_version_over_a_version_finds_it_beside_itself_wherever_both_are(
    base: Clip, delta: Path, tmp_path: Path
) -> None:
    first = publish(delta, tmp_path / "versions", job="job_1", fence=1, base=base)
    over = load_clip(f"local-dir:{first.folder}", device="cpu", precision="float32")
    second = publish(
        save_tuned(tmp_path / "again", over, seed=9), tmp_path / "versions", job="job_2", fence=1, base=over
    )
    assert second.description["base"]["reference"] == f"local-dir:../{first.version}"
    (tmp_path / "versions").rename(tmp_path / "moved")
    (tmp_path / "link").symlink_to(tmp_path / "moved" / second.version)
    for place in (tmp_path / "moved" / second.version, tmp_path / "link"):
        found = load_clip(f"local-dir:{place}", device="cpu", precision="float32")
        assert found.version == second.version


def test_delta_that_was_changed_after_training_is_refused(base: Clip, delta: Path, tmp_path: Path) -> None:
    changed = tmp_path / "changed"
    changed.mkdir()
    for file in delta.iterdir():
        (changed / file.name).write_bytes(file.read_bytes())
    tensors = load_file(changed / "delta.safetensors")
    tensors["ln_final.weight"] = tensors["ln_final.weight"] + 1
    save_file(tensors, changed / "delta.safetensors")
    for given in (base, None):
        with pytest.raises(CheckpointError):
            publish(changed, tmp_path / "versions", job="job_1", fence=1, base=given)
    assert not (tmp_path / "versions").exists()


def test_folder_of_neither_kind_is_refused(tmp_path: Path) -> None:
    with pytest.raises(VersionError, match="neither"):
        publish(tmp_path, tmp_path / "versions", job="job_1", fence=1)


@pytest.mark.parametrize("job", ["", "..", "a/b", "a.b", "a" * 129, "a\n"])
def test_job_that_cannot_be_in_a_folders_name_is_refused(job: str, delta: Path, tmp_path: Path) -> None:
    with pytest.raises(VersionError, match="name"):
        publish(delta, tmp_path, job=job, fence=1)


def big_delta(base: Clip, folder: Path) -> Path:
    """A delta with a file that is larger than the processes below may write."""
    tuned = tuned_copy(base, trained=lambda module: True)
    return save_delta(folder, base, tuned, configuration={}, data={}, metrics={})


def test_killed_publisher_leaves_no_version_and_its_next_attempt_succeeds(base: Clip, tmp_path: Path) -> None:
    delta, versions = big_delta(base, tmp_path / "delta"), tmp_path / "versions"
    command = [sys.executable, "-c", CRASHES, str(delta), str(versions)]
    assert subprocess.run(command).returncode == -signal.SIGXFSZ
    (left,) = versions.iterdir()
    assert re.fullmatch(r"\.\.publishing\.job_7\.3\.[0-9a-f]{8}", left.name)  # job and fence
    assert remove_version_leftovers(versions, held=lambda jobs: dict.fromkeys(jobs, 3)) == []
    assert remove_version_leftovers(versions, held=lambda jobs: dict.fromkeys(jobs, 4)) == [left]
    published = publish(delta, versions, job="job_7", fence=4, base=base)
    assert [path.name for path in versions.iterdir()] == [published.version]


def test_full_disk_leaves_nothing_and_says_so(base: Clip, tmp_path: Path) -> None:
    delta, versions = big_delta(base, tmp_path / "delta"), tmp_path / "versions"
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
    try:
        with pytest.raises(CheckpointError, match=r"cannot be written \(File too large\)"):
            publish(delta, versions, job="job_7", fence=3, base=base)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert list(versions.iterdir()) == []


def test_publisher_that_was_killed_before_the_last_rename_starts_again(
    base: Clip, delta: Path, tmp_path: Path
) -> None:
    half = tmp_path / ".publishing.job_1.1"
    half.mkdir()
    (half / "delta.safetensors").write_text("old")
    published = publish(delta, tmp_path, job="job_1", fence=1, base=base)
    assert [path.name for path in tmp_path.iterdir()] == [published.version]


def test_version_that_is_removed_while_it_is_read_is_published_again(
    base: Clip, delta: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody has published these weights before, and an administrator deletes them at this moment."""
    first = publish(delta, tmp_path, job="job_1", fence=1, base=base)

    def remove_first(folder: Path, version: str) -> PublishedVersion:
        monkeypatch.undo()
        shutil.rmtree(folder)
        return read_published(folder, version)

    monkeypatch.setattr("sds_clip.app.registry.publish.read_published", remove_first)
    assert publish(delta, tmp_path, job="job_2", fence=1, base=base) == first
    assert read_manifest(first.folder).job == "job_2"


# Verifying


def edit(change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], Any]:
    def spoil(folder: Path) -> None:
        content = json.loads((folder / MANIFEST_FILE).read_text())
        change(content)
        (folder / MANIFEST_FILE).write_text(json.dumps(content))

    return spoil


SPOILED: dict[str, tuple[Callable[[Path], Any], str]] = {
    "missing": (lambda folder: (folder / "delta.safetensors").unlink(), r"delta\.safetensors is missing"),
    "cut": (lambda folder: os.truncate(folder / "delta.safetensors", 100), r"delta\.safetensors is not"),
    "changed": (
        lambda folder: (folder / "golden.safetensors").write_bytes(b"x"),
        r"golden\.safetensors is not",
    ),
    "added": (lambda folder: (folder / "extra").write_text(""), "extra does not belong"),
    "a link": (lambda folder: (folder / "link").symlink_to("/etc/passwd"), "link is"),
    "a folder": (lambda folder: (folder / "inner").mkdir(), "inner is"),
    "half-written": (lambda folder: (folder / MANIFEST_FILE).unlink(), "cannot be read"),
    "manifest cut": (lambda folder: os.truncate(folder / MANIFEST_FILE, 40), "cannot be read"),
    "no object": (lambda folder: (folder / MANIFEST_FILE).write_text("[]"), "cannot be read"),
    "another format": (edit(lambda content: content.update(format=2)), r"format\b.* 2\b"),
    "files no object": (edit(lambda content: content.update(files=[1])), "cannot be read"),
    "another version": (edit(lambda content: content.update(version="0" * 64)), "was moved"),
    "description gone": (lambda folder: (folder / "sds_clip_delta.json").unlink(), "neither"),
}


@pytest.mark.parametrize("spoiled", SPOILED)
def test_spoiled_version_is_refused_with_the_file_named(
    spoiled: str, base: Clip, delta: Path, tmp_path: Path
) -> None:
    spoil, told = SPOILED[spoiled]
    published = publish(delta, tmp_path, job="job_1", fence=1, base=base)
    verify(published.folder, published.version)
    spoil(published.folder)
    with pytest.raises(VersionError, match=told):
        verify(published.folder, published.version)


def test_golden_embeddings_that_cannot_be_read_are_refused(tiny_folder: Path, tmp_path: Path) -> None:
    folder = publish(save_tiny_clip(tmp_path / "a"), tmp_path / "versions", job="a", fence=1).folder
    for content in (b"", (folder / "golden.safetensors").read_bytes()[:-4]):
        (folder / "golden.safetensors").write_bytes(content)
        with pytest.raises(VersionError, match="golden"):
            read_golden(folder)
