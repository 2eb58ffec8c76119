"""Whole workers that differ from the rest of the system: by their host's clock, or by their age."""

from collections.abc import Callable

import pytest
from sqlalchemy import text

from sds_clip.app.store import Store
from sds_clip.app.store.records import Job
from sds_clip.app.store.states import JobStatus
from sds_clip.worker.config import WorkerConfig
from tests.databases import on_both
from tests.worker.skewed_worker import AHEAD_S
from tests.worker.waiting import PATIENCE_S, WorkerProcess, until, until_status

pytestmark = pytest.mark.slow

Submit = Callable[..., Job]


@pytest.mark.long
@pytest.mark.parametrize("databases", ["postgresql"], indirect=True)
def test_worker_whose_clock_is_an_hour_ahead_leaves_a_held_job_alone_and_runs_the_next(
    config: WorkerConfig, store: Store, submit: Submit
) -> None:
    held = submit({"act": "count", "steps": 100_000})
    with WorkerProcess(config):
        until_status(store, held.id, JobStatus.RUNNING)
        with WorkerProcess(config, "tests.worker.skewed_worker"):
            until(lambda: len(store.workers.list()) == 2)
            # The skewed worker has looked for jobs before it takes this one.
            other = submit({"act": "count", "steps": 3})
            until_status(store, other.id, JobStatus.SUCCEEDED)
            skews = sorted(each.clock_skew_s or 0.0 for each in store.workers.list() if each.alive)
            assert skews == [pytest.approx(0, abs=60), pytest.approx(AHEAD_S, abs=60)]
            still = store.jobs.get(held.id)
            assert (still.status, still.fence, still.interruptions) == (JobStatus.RUNNING, 1, 0)
            ended = store.jobs.get(other.id)
            assert (ended.fence, ended.interruptions) == (1, 0)
            assert ended.started_at == pytest.approx(still.started_at, abs=PATIENCE_S)


@pytest.mark.long
@on_both
def test_worker_that_has_become_too_old_releases_its_job_and_ends(
    config: WorkerConfig, store: Store, submit: Submit, capfd: pytest.CaptureFixture[str]
) -> None:
    store.migrate()
    job = submit({"act": "count", "steps": 100_000})
    with WorkerProcess(config) as process:
        until_status(store, job.id, JobStatus.RUNNING)
        with store.database.writing() as connection:
            connection.execute(text("UPDATE oldest_program SET revision = '9999'"))
        assert process.wait(PATIENCE_S) == 0
    released = store.jobs.get(job.id)
    assert (released.status, released.interruptions) == (JobStatus.QUEUED, 1)
    assert "This program is too old for its database" in capfd.readouterr().err
    assert store.workers.list() == ()
