"""Jobs that are paused, cancelled or let go in every stage, while a call that never returns keeps the stage busy."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from sds_clip.app.store.states import JobKind, JobStatus
from tests.stalls import environment
from tests.worker.waiting import until
from tests.worker.work import Asked, Work

Stuck = Callable[..., AbstractContextManager[None]]
STALLED = (sys.executable, "-m", "tests.worker.stalled_process")
LONG = pytest.mark.long
STAGES = {
    "loading the base": ("sds_clip.models.training.parts:load_clip", 0),
    "loading the teacher": ("sds_clip.models.training.parts:load_teacher", 0),
    "checking the data": ("sds_clip.models.data.check:_check:3", 0),
    "fitting the mapper": ("sds_clip.models.teacher.teacher:Teacher.encode_image:2", 0),
    "embedding captions": ("sds_clip.models.teacher.teacher:Teacher.encode_captions:3", 2),
    "a step": ("sds_clip.models.training.trainer:Trainer.gradients:2", 1),
    "validating": ("sds_clip.models.training.run:validate:2", 4),
    "the report": ("sds_clip.models.training.run:write_run_report", 4),
    "measuring": ("sds_clip.worker.finetune_job:measure_clip", 4),
    "publishing": ("sds_clip.worker.finetune_job:publish", 4),
}
"""Where a job is busy, and the step from which it goes on."""


@pytest.fixture
def tuning(tuning: Asked, work: Work, pairs_folder: Path, winoground_id: str) -> Asked:
    """A short run with every stage."""
    return tuning | {
        "objective": "sds-clip",
        "teacher": "demo",
        "ridge_images": 16,
        "validation_data": work.add_ready(pairs_folder, "pairs"),
        "evaluate": [{"benchmark": "winoground", "data": winoground_id}],
        "steps": 4,
        "save_every": 1000,
    }


@pytest.fixture
def stuck(work: Work, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stuck:
    @contextmanager
    def at(place: str, queue: str = "finetune") -> Iterator[None]:
        """A slot at work whose job is stuck at a place. It would be killed only after ten minutes."""
        reached = tmp_path / f"reached-{time.monotonic_ns()}"
        for name, value in environment(place, reached).items():
            monkeypatch.setenv(name, value)
        with work.slot(stop_grace_s=600.0, queue=queue, command=STALLED):
            until(reached.exists)
            yield

    return at


@pytest.mark.parametrize(
    "stage",
    [pytest.param(stage, marks=() if stage == "fitting the mapper" else LONG) for stage in STAGES],
)
def test_job_pauses_in_any_stage_and_ends_with_the_weights_of_one_that_did_not(
    work: Work, stage: str, tuning: Asked, stuck: Stuck
) -> None:
    place, step = STAGES[stage]
    job = work.submit(tuning)
    with stuck(place):
        work.store.jobs.request_pause(job.id)
        work.until(job, JobStatus.PAUSED)
    assert "it was asked to pause" in work.events(job)[-1].message
    whole = work.submit(tuning)
    work.store.jobs.request_resume(job.id)
    with work.slot():
        for each in (job, whole):
            work.until(each, JobStatus.SUCCEEDED)
    assert work.get(job).result_version == work.get(whole).result_version
    assert work.resumed(job) == [step]
    assert [point.step for point in work.store.events.metrics(job.id)] == [1, 2, 3, 4]


@pytest.mark.parametrize("stage", [pytest.param("a step", marks=LONG), "fitting the mapper"])
def test_job_is_cancelled_and_let_go_by_its_worker_in_any_stage(
    work: Work, stage: str, tuning: Asked, stuck: Stuck
) -> None:
    job = work.submit(tuning)
    with stuck(STAGES[stage][0]):
        pass  # the worker is stopped
    left = work.get(job)
    assert (left.status, left.attempt) == (JobStatus.QUEUED, 0)
    assert "its worker is shutting down" in work.events(job)[-1].message
    with stuck(STAGES[stage][0]):
        work.store.jobs.request_cancel(job.id)
        work.until(job, JobStatus.CANCELLED)
    assert "it was cancelled" in work.events(job)[-1].message


@pytest.mark.long
def test_evaluation_is_let_go_while_it_encodes(
    work: Work, winoground_id: str, tiny_folder: Path, stuck: Stuck
) -> None:
    asked = {"benchmark": "winoground", "data": winoground_id, "model": f"local-dir:{tiny_folder}"}
    job = work.submit(asked, JobKind.EVALUATE)
    with stuck("sds_clip.models.clip.model:Clip.encode_image", "evaluate"):
        work.store.jobs.request_pause(job.id)
        work.until(job, JobStatus.PAUSED)
    work.store.jobs.request_resume(job.id)
    with work.slot(queue="evaluate"):
        work.until(job, JobStatus.SUCCEEDED)


def test_job_tells_how_much_of_the_mappers_fit_is_done(work: Work, tuning: Asked, stuck: Stuck) -> None:
    """It counts for no step: another attempt does it again, and has not come further by it."""
    job = work.submit(tuning | {"batch_size": 4})
    with stuck("sds_clip.models.teacher.teacher:Teacher.encode_image:3"):
        until(lambda: work.get(job).step == 8)
        found = work.get(job)
        assert (found.stage, found.steps, found.furthest_step) == ("fitting the mapper", 16, 0)
