"""What a job names as a version is that version, or the job fails."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sds_clip.app.registry.store_source import unpublished_version
from sds_clip.app.store import Store
from sds_clip.app.store.records import Job, Move
from sds_clip.app.store.states import JobKind
from sds_clip.models.checkpoints.load import load_clip
from sds_clip.worker.config import WorkerConfig
from sds_clip.worker.errors import JobFailed
from sds_clip.worker.evaluate_job import evaluate
from sds_clip.worker.finetune_job import finetune
from tests.checkpoints import save_tiny_clip
from tests.worker.in_process import claimed

Submit = Callable[..., Job]


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
    param: str,
    changed: str,
    config: WorkerConfig,
    store: Store,
    submit: Submit,
    tiny_folder: Path,
    winoground_id: str,
) -> None:
    models = {"model": f"local-dir:{tiny_folder}", param: changed}
    submit({"benchmark": "winoground", "data": winoground_id, **models}, JobKind.EVALUATE)
    with claimed(config, store, JobKind.EVALUATE) as context, pytest.raises(JobFailed) as caught:
        evaluate(context)
    assert (caught.value.error.code, caught.value.error.param) == ("version_changed", param)


def test_version_with_other_weights_is_no_base(
    changed: str, config: WorkerConfig, store: Store, submit: Submit, finetune_config: dict[str, Any]
) -> None:
    submit(finetune_config | {"base": changed})
    with claimed(config, store) as context, pytest.raises(JobFailed) as caught:
        finetune(context)
    assert (caught.value.error.code, caught.value.error.param) == ("version_changed", "base")


def test_version_with_other_weights_is_not_compared_with_on_its_alias(
    changed: str,
    config: WorkerConfig,
    store: Store,
    submit: Submit,
    finetune_config: dict[str, Any],
    winoground_id: str,
) -> None:
    store.aliases.promote(Move("default", "a test", "", 0), changed)
    asked = {
        "promote": "if_better",
        "evaluate": [{"benchmark": "winoground", "data": winoground_id}],
        "validation_data": finetune_config["training_data"],
    }
    submit(finetune_config | asked)
    with claimed(config, store) as context, pytest.raises(JobFailed) as caught:
        finetune(context)
    assert (caught.value.error.code, caught.value.error.param) == ("version_changed", "alias")
