"""Jobs that are paused, cancelled or let go in every stage, while a call that never returns keeps the stage busy."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from sds_clip.app.store import Store
from sds_clip.app.store.records import Job
from sds_clip.app.store.states import JobKind, JobStatus
from sds_clip.worker.config import WorkerConfig
from tests.stalls import environment
from tests.worker.sets import add_ready
from tests.worker.test_finetune_process import resumes
from tests.worker.waiting import Running, until, until_status

STALLED = (sys.executable, "-m", "tests.worker.stalled_process")
LONG = pytest.mark.long
STAGES = {
    "loading the base": ("sds_clip.models.training.parts:load_clip", 0),
    "loading the teacher": ("sds_clip.models.training.parts:load_teacher", 0),
    "checking the data": ("sds_clip.models.data.check:_check:3", 0),
    "fitting the mapper": ("sds_clip.models.teacher.teacher:Teacher.encode_image:2", 0),
    "embedding captions": ("sds_clip.models.teacher.teacher:Teacher.encode_captions:3", 2),
    "a step": ("sds_clip.models.training.trainer:Trainer.gradients:3", 2),
    "validating": ("sds_clip.models.training.run:validate:2", 4),
    "the report": ("sds_clip.models.training.run:write_run_report", 4),
    "measuring": ("sds_clip.worker.finetune_job:measure_clip", 4),
    "publishing": ("sds_clip.worker.finetune_job:publish", 4),
}
"""Where a job is busy, and the step from which it goes on."""

Submit = Callable[..., Job]


@pytest.fixture
def finetune_config(
    finetune_config: dict[str, object],
    store: Store,
    config: WorkerConfig,
    pairs_folder: Path,
    winoground_id: str,
) -> dict[str, object]:
    """A short run with every stage."""
    validation = add_ready(store, config, pairs_folder, "pairs")
    return finetune_config | {
        "objective": "sds-clip",
        "teacher": "demo",
        "ridge_images": 16,
        "validation_data": validation,
        "evaluate": [{"benchmark": "winoground", "data": winoground_id}],
        "steps": 4,
        "save_every": 1000,
    }


@contextmanager
def stuck(
    config: WorkerConfig, store: Store, place: str, reached: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    """A slot at work whose job is stuck at a place. It would be killed only after ten minutes."""
    for name, value in environment(place, reached).items():
        monkeypatch.setenv(name, value)
    with Running(replace(config, stop_grace_s=600.0), store, command=STALLED):
        until(reached.exists)
        yield


def last_event(store: Store, job: Job) -> str:
    return [event.message for event in store.events.events(job.id)][-1]


@pytest.mark.parametrize(
    "stage",
    [pytest.param(stage, marks=() if stage == "fitting the mapper" else LONG) for stage in STAGES],
)
def test_job_pauses_in_any_stage_and_ends_with_the_weights_of_one_that_did_not(
    stage: str,
    config: WorkerConfig,
    store: Store,
    finetune_config: dict[str, object],
    submit: Submit,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    place, step = STAGES[stage]
    job = submit(finetune_config)
    with stuck(config, store, place, tmp_path / "reached", monkeypatch):
        store.jobs.request_pause(job.id)
        until_status(store, job.id, JobStatus.PAUSED)
    assert "it was asked to pause" in last_event(store, job)
    whole = submit(finetune_config)
    store.jobs.request_resume(job.id)
    with Running(config, store):
        for each in (job, whole):
            until_status(store, each.id, JobStatus.SUCCEEDED)
    versions = {store.jobs.get(each.id).result_version for each in (job, whole)}
    assert len(versions) == 1
    resumed = [event.data["step"] for event in store.events.events(job.id) if resumes(event) and event.data]
    assert resumed == [step]
    assert [point.step for point in store.events.metrics(job.id)] == [1, 2, 3, 4]


@pytest.mark.parametrize("stage", [pytest.param("a step", marks=LONG), "fitting the mapper"])
def test_job_is_cancelled_and_let_go_by_its_worker_in_any_stage(
    stage: str,
    config: WorkerConfig,
    store: Store,
    finetune_config: dict[str, object],
    submit: Submit,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    job = submit(finetune_config)
    with stuck(config, store, STAGES[stage][0], tmp_path / "reached", monkeypatch):
        pass  # the worker is stopped
    left = store.jobs.get(job.id)
    assert (left.status, left.attempt) == (JobStatus.QUEUED, 0)
    assert "its worker is shutting down" in last_event(store, job)
    with stuck(config, store, STAGES[stage][0], tmp_path / "again", monkeypatch):
        store.jobs.request_cancel(job.id)
        until_status(store, job.id, JobStatus.CANCELLED)


@pytest.mark.long
def test_evaluation_is_let_go_while_it_encodes(
    config: WorkerConfig,
    store: Store,
    submit: Submit,
    winoground_id: str,
    tiny_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = {"benchmark": "winoground", "data": winoground_id, "model": f"local-dir:{tiny_folder}"}
    job = submit(asked, JobKind.EVALUATE)
    evaluating = replace(config, queue="evaluate")
    with stuck(
        evaluating, store, "sds_clip.models.clip.model:Clip.encode_image", tmp_path / "reached", monkeypatch
    ):
        store.jobs.request_pause(job.id)
        until_status(store, job.id, JobStatus.PAUSED)
    store.jobs.request_resume(job.id)
    with Running(evaluating, store):
        until_status(store, job.id, JobStatus.SUCCEEDED)


def test_job_tells_how_much_of_the_mappers_fit_is_done(
    config: WorkerConfig,
    store: Store,
    finetune_config: dict[str, object],
    submit: Submit,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It counts for no step: another attempt does it again, and has not come further by it."""
    job = submit(finetune_config | {"batch_size": 4})
    place = "sds_clip.models.teacher.teacher:Teacher.encode_image:3"
    with stuck(config, store, place, tmp_path / "reached", monkeypatch):
        until(lambda: store.jobs.get(job.id).step == 8)
        found = store.jobs.get(job.id)
        assert (found.stage, found.steps, found.furthest_step) == ("fitting the mapper", 16, 0)
