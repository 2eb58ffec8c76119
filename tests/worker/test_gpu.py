"""Jobs on a GPU, in processes of their own. Without one, these tests are skipped, and `make gpu` waits for it."""

from pathlib import Path

import pytest
import torch

from sds_clip.app.store.states import JobKind, JobStatus
from tests.worker.work import Asked, Work

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here"),
]
TOO_LITTLE = 1e-5
"""A share of the GPU's memory into which the smallest model does not fit."""


def test_jobs_train_and_measure_on_a_gpu(
    work: Work, tuning: Asked, teacher_folder: Path, tiny_folder: Path, winoground_id: str
) -> None:
    distilling = {"objective": "sds-clip", "teacher": str(teacher_folder), "sds_batch_size": 4}
    asked = {"benchmark": "winoground", "data": winoground_id}
    diffusion = {"scorer": "diffusion", "teacher": str(teacher_folder), "draws": 2}
    trained = work.submit(tuning | distilling)
    with work.slot(device="cuda"):
        work.until(trained, JobStatus.SUCCEEDED)
    measured = [
        work.submit(asked | how, JobKind.EVALUATE)
        for how in ({"model": f"local-dir:{tiny_folder}"}, diffusion)
    ]
    with work.slot(device="cuda", queue="evaluate"):
        for job in measured:
            work.until(job, JobStatus.SUCCEEDED)
    newest = work.store.events.latest_metrics(trained.id)
    assert newest is not None
    assert 0 < newest.values["peak_memory_mib"] < 1000  # of the GPU: the process itself has more


def test_job_that_needs_more_than_its_share_of_a_gpu_fails_and_says_so(work: Work, tuning: Asked) -> None:
    job = work.submit(tuning)
    with work.slot(device="cuda", gpu_memory_share=TOO_LITTLE):
        work.until(job, JobStatus.FAILED)
    assert work.error(job).code == "out_of_memory"
    assert work.get(job).attempt == 1
