"""Versions into memory: over shared bases, once however many ask, and nothing unchecked."""

import asyncio
import json
import shutil
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from sds_clip.app.registry.bases import BaseNotAllowed
from sds_clip.app.registry.manifest import MANIFEST_FILE, VersionError, write_manifest
from sds_clip.app.registry.publish import publish
from sds_clip.app.registry.source import Registry, WeightsLocation, find_folder
from sds_clip.app.serving.loading import UnknownVersion, VersionLoader
from sds_clip.app.threads import in_own_thread, with_one_torch_thread
from sds_clip.models.checkpoints.delta_file import DeltaError
from sds_clip.models.checkpoints.load import load_clip
from sds_clip.models.clip.golden import Golden
from sds_clip.models.clip.mixed import as_member
from sds_clip.models.clip.model import Clip
from sds_clip.models.clip.packed import to_serve
from sds_clip.models.clip.sharing import bytes_apart, storages
from sds_clip.models.errors import CheckpointError
from tests.app.serving.building import new_engine
from tests.app.serving.swapping import Versions, publish_tuned
from tests.checkpoints import save_tiny_clip

TENSORS = "delta.safetensors"
DESCRIPTION = "sds_clip_delta.json"
Find = Callable[[str], WeightsLocation | None]


@asynccontextmanager
async def loading(
    clip: Clip, versions: Path | Find, *, bases: Sequence[str] = ()
) -> AsyncIterator[VersionLoader]:
    engine = new_engine(clip, max_batch=4)
    engine.start()
    find = partial(find_folder, versions) if isinstance(versions, Path) else versions
    loader = VersionLoader(engine, Registry(find), device="cpu", precision="float32", bases=bases)
    try:
        yield loader
    finally:
        await loader.close()
        await engine.close()


def load(clip: Clip, versions: Path | Find, version: str, **options: Any) -> Clip:
    async def scenario() -> Clip:
        async with loading(clip, versions, **options) as loader:
            return await loader.load(version)

    return asyncio.run(scenario())


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "versions"


@pytest.fixture
def version(small_clip: Clip, root: Path, tmp_path: Path) -> str:
    """A published delta over the served base."""
    return publish_tuned(root, small_clip, tmp_path / "delta", seed=0)


def test_delta_over_the_served_base_shares_its_memory(small_clip: Clip, root: Path, version: str) -> None:
    served = to_serve(small_clip)
    clip = load(served, root, version)
    changed = sum(value.nbytes for value in load_file(root / version / TENSORS).values())
    assert bytes_apart([clip.network], [served.network]) == changed
    own = to_serve(load_clip(f"local-dir:{root / version}", device="cpu", precision="float32"))
    assert clip.version == own.version == version
    assert torch.equal(clip.encode_text(clip.tokenizer(["a dog"])), own.encode_text(own.tokenizer(["a dog"])))


async def test_version_is_read_once_however_many_ask(small_clip: Clip, root: Path, version: str) -> None:
    versions = Versions(root)
    versions.gate.clear()

    async with loading(small_clip, versions.find) as loader:
        waiting = [asyncio.create_task(loader.load(version)) for _ in range(20)]
        while not versions.found:
            await asyncio.sleep(0)
        waiting[0].cancel()  # whoever asked first may give up
        assert loader.loaded(version) is None
        versions.gate.set()
        clips = await asyncio.gather(*waiting[1:])
        assert all(clip is clips[0] for clip in clips)
        assert await loader.load(version) is loader.loaded(version) is clips[0]
    assert versions.found == [version]


def test_served_model_is_not_loaded_again(small_clip: Clip, root: Path) -> None:
    served = as_member(small_clip)
    assert load(served, root, small_clip.version) is served


async def test_deltas_over_a_published_base_share_it(small_clip: Clip, root: Path, tmp_path: Path) -> None:
    folder = save_tiny_clip(tmp_path / "whole", seed=5)
    whole = load_clip(f"local-dir:{folder}", precision="float32")
    published = publish(folder, root, job="import", fence=0)
    versions = [publish_tuned(root, whole, tmp_path / f"d{seed}", seed=seed) for seed in (1, 2)]

    async with loading(small_clip, root) as loader:
        one, two = await asyncio.gather(*(loader.load(version) for version in versions))
        base = await loader.load(published.version)
        total = bytes_apart([base.network], [])
        assert bytes_apart([one.network], [base.network]) < total / 50
        assert bytes_apart([two.network], [one.network]) < total / 50


def test_delta_over_a_published_delta(small_clip: Clip, root: Path, version: str, tmp_path: Path) -> None:
    first = load_clip(f"local-dir:{root / version}", precision="float32")
    served = to_serve(small_clip)
    clip = load(served, root, publish_tuned(root, first, tmp_path / "second", seed=3))
    total = sum(storages(small_clip.network).values())
    assert bytes_apart([clip.network], [served.network]) < total / 50


def test_base_may_lie_elsewhere_now_where_it_is_published(
    small_clip: Clip, root: Path, tmp_path: Path
) -> None:
    folder = save_tiny_clip(tmp_path / "whole", seed=5)
    whole = load_clip(f"local-dir:{folder}", precision="float32")
    publish(folder, root, job="import", fence=0)
    tuned = publish_tuned(root, whole, tmp_path / "delta", seed=0)
    shutil.rmtree(folder)
    assert load(small_clip, root, tuned).version == tuned


def test_base_that_is_neither_served_nor_published_must_be_on_the_operators_list(
    small_clip: Clip, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = save_tiny_clip(tmp_path / "whole", seed=5)
    whole = load_clip(f"local-dir:{folder}", precision="float32")
    tuned = publish_tuned(root, whole, tmp_path / "delta", seed=0)
    with pytest.raises(BaseNotAllowed, match=f"{whole.version[:12]}.*{folder}.*SDS_CLIP_ALLOWED_MODELS"):
        load(small_clip, root, tuned)
    monkeypatch.chdir(tmp_path)
    assert load(small_clip, root, tuned, bases=["./whole"]).version == tuned


def folders_or(reference: str, root: Path) -> Find:
    """Folders, and one reference under the versions that are not there."""
    return lambda version: find_folder(root, version) or reference


def test_operators_reference_stands_for_a_version(small_clip: Clip, root: Path, tmp_path: Path) -> None:
    reference = f"local-dir:{save_tiny_clip(tmp_path / 'whole', seed=5)}"
    whole, versions = load_clip(reference, precision="float32"), folders_or(reference, root)
    assert load(small_clip, versions, whole.version, bases=[reference]).version == whole.version
    with pytest.raises(VersionError, match="it was changed"):
        load(small_clip, versions, "0" * 64, bases=[reference])


@pytest.mark.parametrize("named", ["the reference's version", "a version over it"])
async def test_reference_that_the_operator_does_not_list_is_followed_for_an_alias_alone(
    named: str, small_clip: Clip, root: Path, tmp_path: Path
) -> None:
    reference = f"local-dir:{save_tiny_clip(tmp_path / 'whole', seed=5)}"
    whole = load_clip(reference, precision="float32")
    tuned = publish_tuned(root, whole, tmp_path / "delta", seed=0)
    version = tuned if named == "a version over it" else whole.version

    async with loading(small_clip, folders_or(reference, root)) as loader:
        with pytest.raises(BaseNotAllowed, match=f"{whole.version[:12]}.*SDS_CLIP_ALLOWED_MODELS"):
            await loader.load(version)
        assert loader.loaded(whole.version) is None
        assert (await loader.load(version, by_alias=True)).version == version
        assert (await loader.load(version)).version == version


@pytest.mark.parametrize("name", ["0" * 64, "nothing like a version", "../../etc"])
def test_unknown_version_is_an_error_of_its_own(name: str, small_clip: Clip, root: Path) -> None:
    with pytest.raises(UnknownVersion):
        load(small_clip, root, name)


def test_version_of_another_make_is_loaded_and_computes(small_clip: Clip, root: Path, tmp_path: Path) -> None:
    whole = save_tiny_clip(tmp_path / "quick", quick_gelu=True)
    published = publish(whole, root, job="import", fence=0)
    clip = load(small_clip, root, published.version)
    assert (clip.version, clip.quick_gelu) == (published.version, True)


# What does not fit. The manifest is written anew each time: what lies beneath is to be caught.


def edit_tensors(change: Callable[[dict[str, Tensor]], Any]) -> Callable[[Path], Any]:
    def spoil(folder: Path) -> None:
        tensors = load_file(folder / TENSORS)
        change(tensors)
        save_file(tensors, folder / TENSORS)

    return spoil


def edit_description(change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], Any]:
    def spoil(folder: Path) -> None:
        content = json.loads((folder / DESCRIPTION).read_text())
        change(content)
        (folder / DESCRIPTION).write_text(json.dumps(content))

    return spoil


def renew_manifest(folder: Path) -> None:
    (folder / MANIFEST_FILE).unlink()
    write_manifest(folder, folder.name, "job_1", {})


def another_golden(folder: Path) -> None:
    features = load_file(folder / "golden.safetensors")
    features["text_features"] = -features["text_features"]
    save_file(features, folder / "golden.safetensors")


WRONG: dict[str, tuple[Callable[[Path], Any], str]] = {
    "a number changed": (edit_tensors(lambda t: t["ln_final.weight"].mul_(1.01)), "gives version"),
    "not finite": (edit_tensors(lambda t: t["ln_final.weight"].fill_(float("nan"))), "not finite"),
    "another shape": (
        edit_tensors(lambda t: t.update({"ln_final.weight": torch.ones(31)})),
        r"ln_final\.weight .*shape \[31\]",
    ),
    "a tensor too few": (edit_tensors(lambda t: t.pop("ln_final.weight")), "tensors"),
    "another base": (
        edit_description(lambda content: content["base"].update(version="1" * 64)),
        "SDS_CLIP_ALLOWED_MODELS",
    ),
    "over itself": (
        edit_description(lambda content: content["base"].update(version=content["version"])),
        "over itself",
    ),
    "another computation": (another_golden, "golden .* radians"),
    "no tensors": (lambda folder: (folder / TENSORS).write_bytes(b""), "cannot be read"),
}


@pytest.mark.parametrize("wrong", WRONG)
async def test_wrong_version_is_refused_and_never_in_memory(
    wrong: str, small_clip: Clip, root: Path, version: str
) -> None:
    spoil, told = WRONG[wrong]
    spoil(root / version)
    renew_manifest(root / version)

    async with loading(small_clip, root) as loader:
        for _ in range(2):
            with pytest.raises(CheckpointError, match=told):
                await loader.load(version)
            assert loader.loaded(version) is None


def test_deltas_that_say_they_lie_over_each_other_are_refused(
    small_clip: Clip, root: Path, version: str, tmp_path: Path
) -> None:
    other = publish_tuned(root, small_clip, tmp_path / "other", seed=4)
    for one, base in ((version, other), (other, version)):
        edit_description(lambda content, base=base: content["base"].update(version=base))(root / one)
        renew_manifest(root / one)
    with pytest.raises(DeltaError, match="over itself"):
        load(small_clip, root, version)


def test_weights_that_cannot_be_computed_with_say_why(
    small_clip: Clip, root: Path, version: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(self: Golden, clip: Clip) -> float:
        raise RuntimeError("the device has no memory of that kind")

    monkeypatch.setattr(Golden, "angle", fails)
    with pytest.raises(VersionError, match="no memory of that kind"):
        load(small_clip, root, version)


# Threads


def test_loading_with_one_thread_leaves_the_number_to_others() -> None:
    before, seen = torch.get_num_threads(), []

    async def scenario() -> None:
        def inner() -> None:
            seen.append(torch.get_num_threads())

        await in_own_thread(lambda: with_one_torch_thread(inner, 3), "one")
        await in_own_thread(inner, "next")

    try:
        asyncio.run(scenario())
    finally:
        torch.set_num_threads(before)
    assert seen == [1, 3]


async def test_thread_hands_back_results_and_errors_and_may_be_given_up() -> None:
    gate = threading.Event()

    assert await in_own_thread(lambda: 5, "five") == 5
    with pytest.raises(ZeroDivisionError):
        await in_own_thread(lambda: 1 // 0, "fails")
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await in_own_thread(lambda: gate.wait(10), "hangs")
    gate.set()
