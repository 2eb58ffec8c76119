"""Whole workers that differ from the rest of the system: by their host's clock, or by their age."""

import pytest
from sqlalchemy import text

from sds_clip.app.store.states import JobStatus
from tests.databases import on_both
from tests.worker.skewed_worker import AHEAD_S
from tests.worker.waiting import PATIENCE_S, until
from tests.worker.work import Work

pytestmark = pytest.mark.slow


@pytest.mark.long
@pytest.mark.parametrize("databases", ["postgresql"], indirect=True)
def test_worker_whose_clock_is_an_hour_ahead_leaves_a_held_job_alone_and_runs_the_next(work: Work) -> None:
    held = work.light("count", steps=100_000)
    with work.worker():
        work.until(held, JobStatus.RUNNING)
        with work.worker("tests.worker.skewed_worker"):
            until(lambda: len(work.store.workers.list()) == 2)
            # The skewed worker has looked for jobs before it takes this one.
            other = work.light("count", steps=3)
            work.until(other, JobStatus.SUCCEEDED)
            skews = sorted(each.clock_skew_s or 0.0 for each in work.store.workers.list() if each.alive)
            assert skews == [pytest.approx(0, abs=60), pytest.approx(AHEAD_S, abs=60)]
            still = work.get(held)
            assert (still.status, still.fence, still.interruptions) == (JobStatus.RUNNING, 1, 0)
            ended = work.get(other)
            assert (ended.fence, ended.interruptions) == (1, 0)
            assert ended.started_at == pytest.approx(still.started_at, abs=PATIENCE_S)


@pytest.mark.long
@on_both
def test_worker_that_has_become_too_old_releases_its_job_and_ends(
    work: Work, capfd: pytest.CaptureFixture[str]
) -> None:
    work.store.migrate()
    job = work.light("count", steps=100_000)
    with work.worker() as process:
        work.until(job, JobStatus.RUNNING)
        with work.store.database.writing() as connection:
            connection.execute(text("UPDATE oldest_program SET revision = '9999'"))
        assert process.wait(PATIENCE_S) == 0
    released = work.get(job)
    assert (released.status, released.interruptions) == (JobStatus.QUEUED, 1)
    assert "This program is too old for its database" in capfd.readouterr().err
    assert work.store.workers.list() == ()
