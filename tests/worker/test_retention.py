"""What is kept of jobs, and for how long."""

import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from sds_clip.app.errors import StoreUnavailable, UnknownRecord
from sds_clip.app.registry.manifest import write_manifest
from sds_clip.app.removal import remove_job_files
from sds_clip.app.retention.policy import Rules
from sds_clip.app.store import Store
from sds_clip.app.store.records import Job, JobError, Lease, NewVersion
from sds_clip.app.store.states import JobKind
from sds_clip.worker.config import WorkerConfig
from sds_clip.worker.folders import JobFolder
from sds_clip.worker.metrics import WorkerMetrics
from sds_clip.worker.reaper import Reaper
from tests.databases import on_both
from tests.worker.waiting import WorkerProcess, fit, reaper, until

pytestmark = on_both


def attempt(config: WorkerConfig, store: Store, submit: Callable[..., Job]) -> tuple[Lease, Path]:
    """A claimed job with files, and its folder."""
    submit({})
    job = store.leases.claim(JobKind.FINETUNE, "a test", 600)
    assert job is not None
    folder = JobFolder(config.jobs_dir, Lease.of(job))
    for each in (folder.run, folder.work):
        each.mkdir(parents=True)
    (folder.path / "results.json").write_text("{}")
    return Lease.of(job), folder.path


def test_only_what_jobs_that_ended_need_no_more_is_removed(
    config: WorkerConfig, store: Store, submit: Callable[..., Job]
) -> None:
    _, running = attempt(config, store, submit)
    failed_lease, failed = attempt(config, store, submit)
    store.leases.fail(failed_lease, JobError("x", "x"))
    evaluated_lease, evaluated = attempt(config, store, submit)
    store.leases.succeed(evaluated_lease, result={"files": {"results": "..."}})
    trained_lease, trained = attempt(config, store, submit)
    store.leases.succeed(trained_lease)
    config.versions_dir.mkdir()
    dead, live = (config.versions_dir / f".publishing.{job}.1" for job in ("job_0", running.parent.name))
    dead.mkdir()
    live.mkdir()
    reaper(config, store).clean()
    assert sorted(path.name for path in running.iterdir()) == ["results.json", "run", "work"]
    assert sorted(path.name for path in failed.iterdir()) == ["results.json", "run", "work"]
    assert [path.name for path in evaluated.iterdir()] == ["results.json"]
    assert not trained.parent.exists()
    assert (dead.exists(), live.exists()) == (False, True)
    reaper(replace(config, keep_files_s=0.0), store).clean()
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
def test_cancelled_job_keeps_only_its_newest_whole_checkpoint_and_its_log(
    looks: str, config: WorkerConfig, store: Store, submit: Callable[..., Job]
) -> None:
    """Of two attempts; the newest checkpoint is damaged, another half-written."""
    lease, first = attempt(config, store, submit)
    store.leases.release(lease)
    job = store.leases.claim(JobKind.FINETUNE, "a test", 600)
    assert job is not None
    second = JobFolder(config.jobs_dir, Lease.of(job)).run
    old = [save(first / "run", step, b"first") for step in (1, 2)]
    whole = save(second, 3, b"whole")
    damaged = save(second, 4, b"whole")
    (damaged / "state.safetensors").write_bytes(b"damaged")
    half = second / "checkpoints" / ".step-00000005.abcd"
    half.mkdir()
    (second / "log.jsonl").write_text("{}")
    later = save(config.jobs_dir / job.id / "3" / "run", 9, b"of a retry that has begun")
    cleanup = reaper(config, store)
    cleanup.clean()
    assert all(folder.exists() for folder in (*old, whole, damaged, half))  # it runs
    store.jobs.request_cancel(job.id)
    store.leases.release(Lease.of(job))

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
    config: WorkerConfig, store: Store, submit: Callable[..., Job], publish: Callable[[str], Path]
) -> None:
    lease, _ = attempt(config, store, submit)
    folder = publish(lease.job_id)
    at_once = reaper(replace(config, keep_files_s=0.0), store)
    at_once.clean()
    assert folder.exists()  # the job is about to make it known
    store.jobs.request_cancel(lease.job_id)
    store.leases.succeed(lease)
    reaper(config, store).clean()
    assert folder.exists()
    at_once.clean()
    assert not folder.exists()


def test_version_that_was_deleted_is_removed_and_one_that_is_registered_stays(
    config: WorkerConfig, store: Store, publish: Callable[[str], Path]
) -> None:
    """A process was killed after it had marked the one as deleted."""
    ready, deleted = publish("import"), publish("import")
    for folder in (ready, deleted):
        store.versions.register(NewVersion(folder.name, f"versions/{folder.name}", {}, 1))
    store.versions.delete(deleted.name)
    reaper(config, store).clean()
    assert list(config.versions_dir.iterdir()) == [ready]


def test_version_of_another_database_is_left_alone(
    config: WorkerConfig, store: Store, publish: Callable[[str], Path]
) -> None:
    folder = publish("job_of_another")
    reaper(replace(config, keep_files_s=0.0), store).clean()
    assert folder.exists()


def test_files_of_an_ended_job_stay_for_a_while_and_then_its_row_says_that_they_are_gone(
    config: WorkerConfig, store: Store, submit: Callable[..., Job]
) -> None:
    lease, folder = attempt(config, store, submit)
    store.leases.fail(lease, JobError("x", "x"))
    reaper(config, store).clean()
    assert folder.exists()
    assert store.jobs.get(lease.job_id).files_removed_at is None
    reaper(replace(config, keep_files_s=0.0), store).clean()
    assert not list(config.jobs_dir.iterdir())
    assert store.jobs.get(lease.job_id).files_removed_at is not None


def test_files_of_a_job_that_was_taken_up_again_stay(
    config: WorkerConfig, store: Store, submit: Callable[..., Job]
) -> None:
    lease, folder = attempt(config, store, submit)
    store.leases.fail(lease, JobError("x", "x"))
    store.jobs.request_retry(lease.job_id)
    reaper(replace(config, keep_files_s=0.0), store).clean()
    assert folder.exists()


def test_what_a_straggler_and_a_crash_have_left_of_a_deleted_job_is_removed(
    config: WorkerConfig, store: Store, submit: Callable[..., Job]
) -> None:
    lease, folder = attempt(config, store, submit)
    store.leases.succeed(lease, result={"files": {"results": "..."}})
    remove_job_files(store, config.jobs_dir, lease.job_id)
    folder.mkdir(parents=True)
    (config.jobs_dir / f".removing.{lease.job_id}.0").mkdir()
    reaper(config, store).clean()
    assert not list(config.jobs_dir.iterdir())


def test_a_sweep_removes_what_the_settings_let_go_and_is_counted(
    config: WorkerConfig, store: Store, submit: Callable[..., Job]
) -> None:
    lease, folder = attempt(config, store, submit)
    store.leases.fail(lease, JobError("x", "x"))
    metrics = WorkerMetrics(config.kind, config.data_dir, 0)

    def swept(**rules: float) -> tuple[float | None, float | None]:
        ruled = replace(config, retention=Rules(**rules))  # type: ignore[arg-type]
        Reaper(ruled, store, fit(config, store), metrics).sweep()
        read = metrics.registry.get_sample_value
        return read("sds_clip_removed_total", {"kind": "job"}), read(
            "sds_clip_removed_bytes_total", {"kind": "job"}
        )

    assert swept() == swept(keep_jobs_s=3600.0) == (0.0, 0.0)
    assert folder.exists()
    assert store.retention.claim_sweep("another", 600)
    assert swept(keep_jobs_s=0.0) == (0.0, 0.0)
    store.retention.release_sweep("another")
    assert swept(keep_jobs_s=0.0) == (1.0, float(len("{}")))
    assert not folder.parent.exists()
    with pytest.raises(UnknownRecord):
        store.jobs.get(lease.job_id)


def test_a_worker_begins_with_a_sweep(config: WorkerConfig, store: Store, submit: Callable[..., Job]) -> None:
    lease, folder = attempt(config, store, submit)
    store.leases.fail(lease, JobError("x", "x"))
    with WorkerProcess(replace(config, retention=Rules(keep_jobs_s=0.0))):
        until(lambda: not store.jobs.list().items)
    assert not folder.exists()


def test_folder_that_cannot_be_marked_as_removed_is_where_it_was(
    config: WorkerConfig, store: Store, submit: Callable[..., Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The database goes away between the moving and the commit."""
    lease, folder = attempt(config, store, submit)
    store.leases.fail(lease, JobError("x", "x"))
    withheld = store.jobs.withheld

    @contextmanager
    def away(job_id: str, **options: float) -> Iterator[Job]:
        with withheld(job_id, **options) as job:
            yield job
            assert not folder.exists()
            raise StoreUnavailable

    monkeypatch.setattr(store.jobs, "withheld", away)
    with pytest.raises(StoreUnavailable):
        remove_job_files(store, config.jobs_dir, lease.job_id)
    assert folder.exists()
    assert store.jobs.get(lease.job_id).files_removed_at is None
