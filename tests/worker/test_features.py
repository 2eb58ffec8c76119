"""Features that jobs share: computed once, bounded, and never waited for."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from sds_clip.app.store import Store
from sds_clip.app.store.records import Job
from sds_clip.app.store.states import JobKind
from sds_clip.models.checkpoints.load import load_clip
from sds_clip.models.evaluation.scorers import ClipScorer
from sds_clip.worker.config import WorkerConfig
from sds_clip.worker.evaluate_job import evaluate
from sds_clip.worker.finetune_job import finetune
from tests.checkpoints import save_tiny_clip
from tests.worker.in_process import claimed, run_job

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
    with ClipScorer(load_clip(model, device="cpu", precision="float32"), config.features_dir):
        run(config, store, submit, benchmark="winoground", data=winoground_id, model=model)
        assert encoded == [{"images": 8, "texts": 8}]


def test_features_are_kept_within_the_bound(
    config: WorkerConfig,
    store: Store,
    submit: Submit,
    tiny_folder: Path,
    winoground_id: str,
    encoded: Encoded,
) -> None:
    asked = {"benchmark": "winoground", "data": winoground_id, "model": f"local-dir:{tiny_folder}"}
    for _ in range(2):
        run(replace(config, feature_cache_bytes=0), store, submit, **asked)
    assert encoded == [{"images": 8, "texts": 8}] * 2
