"""Two keys share one worker: a service, a broker and a worker as they are run, with small jobs and archives."""

import io
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from sds_clip.app.store import Store
from sds_clip.app.store.states import JobStatus
from sds_clip.app.store.verdicts import check_of
from sds_clip.worker.valkey import Valkey
from tests.app.jobs.by_http import is_ready, pairs, submit, upload, worker_beside
from tests.app.jobs.conftest import Keyed
from tests.worker.waiting import WorkerProcess, until, until_status

JOBS, ARCHIVES, ENTRIES = 200, 50, 2000


def empty_entries() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for number in range(ENTRIES):
            archive.addfile(tarfile.TarInfo(f"{number:06d}"))
    return buffer.getvalue()


def claimed_between(store: Store, jobs: list[str], after: float, before: float) -> int:
    """How often a worker has taken one of these jobs meanwhile."""
    return sum(
        after < event.at < before and (event.data or {}).get("to") == JobStatus.RUNNING
        for job in jobs
        for event in store.events.transitions(job)
    )


@pytest.mark.long
def test_four_pairs_of_one_key_are_next_whatever_another_key_has_waiting(
    make_keyed: Callable[..., Keyed], broker: Valkey, tiny_folder: Path
) -> None:
    base = f"local-dir:{tiny_folder}"
    keyed = make_keyed(broker_url=broker.url, allowed_models=[base], max_open_jobs=10 * JOBS)
    store, settings = keyed.service.store, keyed.service.settings
    config = worker_beside(settings, max_turn_s=2.0)

    with WorkerProcess(config, "tests.worker.real_worker"):
        hers = upload(keyed, "alice", pairs())
        until(lambda: is_ready(store, hers))
        jobs = [submit(keyed, "alice", base, hers, steps=100_000) for _ in range(JOBS)]
        archive = empty_entries()
        checks = [check_of(upload(keyed, "alice", archive)) for _ in range(ARCHIVES)]
        until(lambda: store.jobs.get(jobs[0]).furthest_step > 0)

        his = upload(keyed, "bob", pairs())
        job = submit(keyed, "bob", base, his, steps=5)
        until(lambda: is_ready(store, his))
        until_status(store, job, JobStatus.SUCCEEDED)

    check, ended = store.jobs.get(check_of(his)), store.jobs.get(job)
    assert check.started_at is not None
    assert ended.started_at is not None
    # One that the slot takes at the very moment of the upload, or of the verdict, may come before.
    assert claimed_between(store, checks, check.created_at, check.started_at) <= 1
    assert claimed_between(store, jobs, ended.queued_at or 0.0, ended.started_at) <= 1
    assert any("Its turn was over" in each.message for each in store.events.transitions(jobs[0]))
    assert sum(store.jobs.get(each).fence == 0 for each in jobs) >= JOBS - 2
