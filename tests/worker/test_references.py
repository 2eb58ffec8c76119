"""What a job names as a version is that version, or the job fails."""

import shutil
from pathlib import Path

import pytest

from sds_clip.app.registry.store_source import unpublished_version
from sds_clip.app.store import Store
from sds_clip.app.store.states import JobKind
from sds_clip.models.checkpoints.load import load_clip
from sds_clip.worker.evaluate_job import evaluate
from sds_clip.worker.finetune_job import finetune
from tests.checkpoints import save_tiny_clip
from tests.worker.work import Asked, Work, if_better


@pytest.fixture
def changed(store: Store, tmp_path: Path) -> str:
    """A registered version, in whose folder lie other weights by now."""
    folder = save_tiny_clip(tmp_path / "clip", seed=5)
    clip = load_clip(f"local-dir:{folder}", device="cpu", precision="float32")
    store.versions.register(unpublished_version(clip))
    shutil.rmtree(folder)
    save_tiny_clip(folder, seed=6)
    return clip.version


@pytest.mark.parametrize("param", ["model", "baseline"])
def test_version_with_other_weights_is_not_measured(
    work: Work, param: str, changed: str, tiny_folder: Path, winoground_id: str
) -> None:
    models = {"model": f"local-dir:{tiny_folder}", param: changed}
    work.submit({"benchmark": "winoground", "data": winoground_id, **models}, JobKind.EVALUATE)
    assert work.fails(evaluate) == ("version_changed", param)


def test_version_with_other_weights_is_no_base(work: Work, changed: str, tuning: Asked) -> None:
    work.submit(tuning | {"base": changed})
    assert work.fails(finetune) == ("version_changed", "base")


def test_version_with_other_weights_is_not_compared_with_on_its_alias(
    work: Work, changed: str, tuning: Asked, winoground_id: str
) -> None:
    work.point("default", changed)
    work.submit(if_better(tuning, winoground_id))
    assert work.fails(finetune) == ("version_changed", "alias")
