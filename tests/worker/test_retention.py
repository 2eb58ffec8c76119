"""What is kept of jobs, and for how long."""

import hashlib
import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, Table, event

from sds_clip.app.errors import StoreUnavailable, UnknownRecord
from sds_clip.app.registry.manifest import write_manifest
from sds_clip.app.removal import remove_job_files
from sds_clip.app.retention.policy import Rules
from sds_clip.app.store import Store
from sds_clip.app.store.paging import MAX_ROWS
from sds_clip.app.store.records import Job, JobError, Lease, NewVersion
from sds_clip.app.store.states import JobKind
from sds_clip.app.store.tables import jobs, versions
from sds_clip.worker.config import WorkerConfig
from sds_clip.worker.folders import JobFolder
from sds_clip.worker.metrics import WorkerMetrics
from sds_clip.worker.reaper import SWEEP_EVERY_S, Reaper
from tests.databases import on_both
from tests.worker.waiting import fit, reaper, until
from tests.worker.work import Work

pytestmark = on_both


def attempt(work: Work) -> tuple[Lease, Path]:
    """A claimed job with files, and its folder."""
    work.submit({})
    lease = claimed(work)
    folder = JobFolder(work.config.jobs_dir, lease)
    for each in (folder.run, folder.work):
        each.mkdir(parents=True)
    (folder.path / "results.json").write_text("{}")
    return lease, folder.path


def claimed(work: Work) -> Lease:
    job = work.store.leases.claim(JobKind.FINETUNE, "a test", 600)
    assert job is not None
    return Lease.of(job)


def failed_attempt(work: Work) -> tuple[str, Path]:
    """A failed job with files: its id, and its folder."""
    lease, folder = attempt(work)
    work.store.leases.fail(lease, JobError("x", "x"))
    return lease.job_id, folder


def clean(work: Work, **changes: Any) -> None:
    reaper(replace(work.config, **changes), work.store).clean()


@contextmanager
def transactions() -> Iterator[Counter[str]]:
    """Counts the transactions of this thread. What other tests have left running may begin some too."""
    counted, here = Counter[str](), threading.get_ident()

    def begin(connection: object) -> None:
        counted["begun"] += threading.get_ident() == here

    event.listen(Engine, "begin", begin)
    yield counted
    event.remove(Engine, "begin", begin)


def copies(work: Work, table: Table, ids: Sequence[str], parent: Path) -> None:
    """Folders, with rows like the first one of a table."""
    with work.store.database.writing() as connection:
        row = dict(connection.execute(table.select().limit(1)).mappings().one())
        connection.execute(table.insert(), [{**row, "id": id} for id in ids])
    for id in ids:
        (parent / id).mkdir(parents=True)


def test_cleanup_takes_a_transaction_for_each_folder_that_goes_and_a_few_for_each_thousand_that_stay(
    work: Work,
) -> None:
    failed_attempt(work)
    work.store.versions.register(NewVersion("f" * 64, "versions/f", {}, 1))
    copies(work, jobs, [f"job_{number:04d}" for number in range(MAX_ROWS)], work.config.jobs_dir)
    copies(work, versions, [f"{number:064x}" for number in range(MAX_ROWS + 1)], work.config.versions_dir)
    with transactions() as counted:
        clean(work)
    # Two batches of each: the lease and the jobs; the lease, versions that are known, those that are ready, and the
    # makers of unknown ones. Then leftovers, the jobs that made them, use of long ago, and old events.
    assert counted["begun"] <= 2 * 2 + 2 * 4 + 5
    assert len(list(work.config.jobs_dir.iterdir())) == MAX_ROWS + 1
    work.store.versions.delete("0" * 64)
    with transactions() as again:
        clean(work)
    assert again["begun"] == counted["begun"] + 1
    assert len(list(work.config.versions_dir.iterdir())) == MAX_ROWS
    with transactions() as looked:
        reaper(work.config, work.store).look()
    assert looked["begun"] == 2


def test_of_all_workers_one_cleans_up_until_the_next_cleanup_is_due(work: Work) -> None:
    _, folder = failed_attempt(work)
    old = {"keep_files_s": 0.0}
    clean(work)
    clean(work, queue="evaluate", **old)
    assert folder.exists()
    with later(work) as store:
        reaper(replace(work.config, queue="evaluate", **old), store).clean()
        assert not folder.exists()
    _, folder = failed_attempt(work)
    clean(work, **old)
    assert folder.exists()


def test_worker_that_loses_the_lease_stops_cleaning_up(work: Work, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each folder is a batch of its own, and another worker takes over during the first."""
    folders = [failed_attempt(work)[1] for _ in range(3)]
    monkeypatch.setattr("sds_clip.worker.reaper.MAX_ROWS", 1)
    removed = []

    def remove(*arguments: Any, **options: Any) -> Job:
        with later(work) as store:
            assert store.retention.claim_sweep("another", 600, name="cleanup")
        removed.append(remove_job_files(*arguments, **options).id)
        return work.store.jobs.get(removed[-1])

    monkeypatch.setattr("sds_clip.worker.reaper.remove_job_files", remove)
    clean(work, keep_files_s=0.0)
    assert [folder.exists() for folder in folders].count(False) == len(removed) == 1


@contextmanager
def later(work: Work) -> Iterator[Store]:
    """The store at a time when a lease on the cleanup that is held now has ended."""
    store = Store(work.config.database_url, clock=lambda: time.time() + SWEEP_EVERY_S + 1)
    yield store
    store.close()


def test_only_what_jobs_that_ended_need_no_more_is_removed(work: Work) -> None:
    _, running = attempt(work)
    _, failed = failed_attempt(work)
    evaluated_lease, evaluated = attempt(work)
    work.store.leases.succeed(evaluated_lease, result={"files": {"results": "..."}})
    trained_lease, trained = attempt(work)
    work.store.leases.succeed(trained_lease)
    work.config.versions_dir.mkdir()
    dead, live = (work.config.versions_dir / f".publishing.{job}.1" for job in ("job_0", running.parent.name))
    dead.mkdir()
    live.mkdir()
    clean(work)
    assert sorted(path.name for path in running.iterdir()) == ["results.json", "run", "work"]
    assert sorted(path.name for path in failed.iterdir()) == ["results.json", "run", "work"]
    assert [path.name for path in evaluated.iterdir()] == ["results.json"]
    assert not trained.parent.exists()
    assert (dead.exists(), live.exists()) == (False, True)
    clean(work, keep_files_s=0.0)
    assert not failed.parent.exists()
    assert running.exists()
    assert evaluated.exists()


def save(run: Path, step: int, content: bytes) -> Path:
    checkpoint = run / "checkpoints" / f"step-{step:08d}"
    checkpoint.mkdir(parents=True)
    (checkpoint / "state.safetensors").write_bytes(content)
    (checkpoint / "state.json").write_text(json.dumps({"sha256": hashlib.sha256(content).hexdigest()}))
    return checkpoint


@pytest.mark.parametrize("looks", ["look", "clean"])
def test_cancelled_job_keeps_only_its_newest_whole_checkpoint_and_its_log(work: Work, looks: str) -> None:
    """Of two attempts; the newest checkpoint is damaged, another half-written."""
    lease, first = attempt(work)
    work.store.leases.release(lease)
    again = claimed(work)
    second = JobFolder(work.config.jobs_dir, again).run
    old = [save(first / "run", step, b"first") for step in (1, 2)]
    whole = save(second, 3, b"whole")
    damaged = save(second, 4, b"whole")
    (damaged / "state.safetensors").write_bytes(b"damaged")
    half = second / "checkpoints" / ".step-00000005.abcd"
    half.mkdir()
    (second / "log.jsonl").write_text("{}")
    later = save(work.config.jobs_dir / again.job_id / "3" / "run", 9, b"of a retry that has begun")
    cleanup = reaper(work.config, work.store)
    cleanup.clean()
    assert all(folder.exists() for folder in (*old, whole, damaged, half))  # it runs
    work.store.jobs.request_cancel(again.job_id)
    work.store.leases.release(again)

    getattr(cleanup, looks)()

    assert [folder for folder in (*old, whole, damaged, half, later) if folder.exists()] == [whole, later]
    assert (second / "log.jsonl").exists()


@pytest.fixture
def publish(config: WorkerConfig) -> Callable[[str], Path]:
    """Makes a version's folder as a job of some id leaves it."""

    def publish(job_id: str) -> Path:
        folder = config.versions_dir / f"{len(list(config.versions_dir.glob('*'))):064x}"
        folder.mkdir(parents=True)
        (folder / "open_clip_config.json").write_text("{}")
        write_manifest(folder, folder.name, job_id, {})
        return folder

    return publish


def test_version_that_its_ended_job_did_not_make_known_is_removed_in_time(
    work: Work, publish: Callable[[str], Path]
) -> None:
    lease, _ = attempt(work)
    folder = publish(lease.job_id)
    clean(work, keep_files_s=0.0)
    assert folder.exists()  # the job is about to make it known
    work.store.jobs.request_cancel(lease.job_id)
    work.store.leases.succeed(lease)
    clean(work)
    assert folder.exists()
    clean(work, keep_files_s=0.0)
    assert not folder.exists()


def test_version_that_was_deleted_is_removed_and_one_that_is_registered_stays(
    work: Work, publish: Callable[[str], Path]
) -> None:
    """A process was killed after it had marked the one as deleted."""
    ready, deleted = publish("import"), publish("import")
    for folder in (ready, deleted):
        work.store.versions.register(NewVersion(folder.name, f"versions/{folder.name}", {}, 1))
    work.store.versions.delete(deleted.name)
    clean(work)
    assert list(work.config.versions_dir.iterdir()) == [ready]


def test_version_of_another_database_is_left_alone(work: Work, publish: Callable[[str], Path]) -> None:
    folder = publish("job_of_another")
    clean(work, keep_files_s=0.0)
    assert folder.exists()


def test_files_of_a_job_that_was_taken_up_again_stay(work: Work) -> None:
    job_id, folder = failed_attempt(work)
    work.store.jobs.request_retry(job_id)
    clean(work, keep_files_s=0.0)
    assert folder.exists()


def test_what_a_straggler_and_a_crash_have_left_of_a_deleted_job_is_removed(work: Work) -> None:
    lease, folder = attempt(work)
    work.store.leases.succeed(lease, result={"files": {"results": "..."}})
    remove_job_files(work.store, work.config.jobs_dir, lease.job_id)
    folder.mkdir(parents=True)
    (work.config.jobs_dir / f".removing.{lease.job_id}.0").mkdir()
    clean(work)
    assert not list(work.config.jobs_dir.iterdir())


def test_a_sweep_removes_what_the_settings_let_go_and_is_counted(work: Work) -> None:
    job_id, folder = failed_attempt(work)
    metrics = WorkerMetrics(work.config.data_dir, 0)

    def swept(**rules: float) -> tuple[float | None, ...]:
        config = replace(work.config, retention=Rules(**rules))  # type: ignore[arg-type]
        Reaper(config, work.store, fit(config, work.store), metrics).sweep()
        names = ("sds_clip_removed_total", "sds_clip_removed_bytes_total")
        return tuple(metrics.registry.get_sample_value(name, {"kind": "job"}) for name in names)

    assert swept() == swept(keep_jobs_s=3600.0) == (0.0, 0.0)
    assert folder.exists()
    assert work.store.retention.claim_sweep("another", 600)
    assert swept(keep_jobs_s=0.0) == (0.0, 0.0)
    work.store.retention.release_sweep("another")
    assert swept(keep_jobs_s=0.0) == (1.0, float(len("{}")))
    assert not folder.parent.exists()
    with pytest.raises(UnknownRecord):
        work.store.jobs.get(job_id)


def test_a_worker_begins_with_a_sweep(work: Work) -> None:
    _, folder = failed_attempt(work)
    with work.worker(retention=Rules(keep_jobs_s=0.0)):
        until(lambda: not work.store.jobs.list().items)
    assert not folder.exists()


def test_folder_that_cannot_be_marked_as_removed_is_where_it_was(
    work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The database goes away between the moving and the commit."""
    job_id, folder = failed_attempt(work)
    withheld = work.store.jobs.withheld

    @contextmanager
    def away(job_id: str, **options: float) -> Iterator[Job]:
        with withheld(job_id, **options) as job:
            yield job
            assert not folder.exists()
            raise StoreUnavailable

    monkeypatch.setattr(work.store.jobs, "withheld", away)
    with pytest.raises(StoreUnavailable):
        remove_job_files(work.store, work.config.jobs_dir, job_id)
    assert folder.exists()
    assert work.store.jobs.get(job_id).files_removed_at is None
