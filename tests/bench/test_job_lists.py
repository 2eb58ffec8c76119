"""The databases that lists are measured over."""

from pathlib import Path

from bench.job_lists import fill
from sds_clip.app.store import Store
from sds_clip.app.store.states import JobStatus


def test_filled_database_has_so_many_finished_jobs_and_names_the_middle_one(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'jobs.db'}"
    middle = fill(url, 30)
    store = Store(url)
    assert store.jobs.count(JobStatus.SUCCEEDED) == 30
    after = store.jobs.list(after=middle, limit=30).items
    assert 10 < len(after) < 20
    assert len(store.events.transitions(middle)) == 3
    store.close()
