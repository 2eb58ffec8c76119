"""Features that jobs share: computed once, bounded, and never waited for."""

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from app.store import Store
from app.store.records import Job
from app.store.states import JobKind
from models.checkpoints import load_clip
from models.evaluation.feature_store import FeatureStore
from models.evaluation.scorers import ClipScorer
from tests.checkpoints import save_tiny_clip
from tests.worker.in_process import claimed, run_job
from worker.config import WorkerConfig
from worker.evaluate_job import evaluate
from worker.features import keep_within
from worker.finetune_job import finetune
from worker.reaper import Retention

Submit = Callable[..., Job]
Encoded = list[dict[str, int]]


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> Encoded:
    """What each scorer has sent through its model, in the order in which they were closed."""
    found: Encoded = []
    close = ClipScorer.close

    def closing(scorer: ClipScorer) -> None:
        found.append(scorer.encoded)
        close(scorer)

    monkeypatch.setattr(ClipScorer, "close", closing)
    return found


def run(config: WorkerConfig, store: Store, submit: Submit, **asked: object) -> Job:
    return run_job(config, store, submit(asked, JobKind.EVALUATE), evaluate)


def metrics(job: Job) -> object:
    assert job.result is not None
    return job.result["metrics"]


def test_second_job_encodes_nothing(
    config: WorkerConfig,
    store: Store,
    submit: Submit,
    tiny_folder: Path,
    winoground_id: str,
    tmp_path: Path,
    encoded: Encoded,
) -> None:
    asked = {"benchmark": "winoground", "data": winoground_id}
    one, other = f"local-dir:{tiny_folder}", f"local-dir:{save_tiny_clip(tmp_path / 'other', seed=7)}"
    first = run(config, store, submit, **asked, model=one, baseline=other)
    assert encoded == [{"images": 8, "texts": 8}] * 2
    again = run(config, store, submit, **asked, model=one, baseline=other)
    run(config, store, submit, **asked, model=other)
    assert encoded[2:] == [{"images": 0, "texts": 0}] * 3
    assert metrics(again) == metrics(first)


def test_version_that_a_job_has_made_is_not_encoded_again(
    config: WorkerConfig,
    store: Store,
    submit: Submit,
    finetune_config: dict[str, object],
    winoground_id: str,
    encoded: Encoded,
) -> None:
    job = submit(finetune_config | {"evaluate": [{"benchmark": "winoground", "data": winoground_id}]})
    with claimed(config, store) as context:
        finetune(context)
    version = store.jobs.get(job.id).result_version
    run(config, store, submit, benchmark="winoground", data=winoground_id, model=version)
    assert encoded == [{"images": 8, "texts": 8}, {"images": 0, "texts": 0}]


def test_job_does_not_wait_for_features_that_another_has_open(
    config: WorkerConfig,
    store: Store,
    submit: Submit,
    tiny_folder: Path,
    winoground_id: str,
    encoded: Encoded,
) -> None:
    model = f"local-dir:{tiny_folder}"
    with ClipScorer(load_clip(model, device="cpu", precision="float32"), config.features_dir) as holder:
        run(config, store, submit, benchmark="winoground", data=winoground_id, model=model)
        assert encoded == [{"images": 8, "texts": 8}]
        assert len(holder._images) == 0


def save_store(folder: Path, *, rows: int, used_at: float) -> Path:
    with FeatureStore(folder, "images", 8) as store:
        added = store.add(torch.eye(8)[:1].expand(rows, 8))
        store.name({row.to_bytes(32): row for row in added})
    for file in folder.iterdir():
        os.utime(file, (used_at, used_at))
    return folder


def test_what_was_used_longest_ago_is_dropped_beyond_the_bound(tmp_path: Path) -> None:
    one, two, three = (save_store(tmp_path / name, rows=10, used_at=1.0) for name in "abc")
    size = sum(file.stat().st_size for file in one.iterdir())
    os.utime(two / "images.f32", (3.0, 3.0))
    os.utime(three / "images.f32", (2.0, 2.0))
    keep_within(tmp_path, 3 * size)
    assert sorted(tmp_path.iterdir()) == [one, two, three]
    FeatureStore(one, "images", 8).close()  # so that it is not the oldest any more
    keep_within(tmp_path, 3 * size - 1)
    assert sorted(tmp_path.iterdir()) == [one, two]
    with FeatureStore(two, "images", 8):
        keep_within(tmp_path, 0)
        assert list(tmp_path.iterdir()) == [two]


def test_rubbish_and_empty_folders_of_killed_processes_do_not_stay(tmp_path: Path) -> None:
    save_store(tmp_path / ".half-removed", rows=1, used_at=1.0)
    (tmp_path / "just-made").mkdir()
    kept = save_store(tmp_path / "kept", rows=1, used_at=1.0)
    keep_within(tmp_path, sum(file.stat().st_size for file in kept.iterdir()))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["just-made", "kept"]
    keep_within(tmp_path, 0)
    assert list(tmp_path.iterdir()) == []


def test_retention_keeps_the_bound(config: WorkerConfig, store: Store) -> None:
    Retention(config, store).clean()  # there is no such folder yet
    kept = save_store(config.features_dir / "a", rows=10, used_at=1.0)
    Retention(config, store).clean()
    assert kept.exists()
    Retention(replace(config, feature_cache_bytes=100), store).clean()
    assert list(config.features_dir.iterdir()) == []
