"""What is restored is what was there, on either database, whatever the system does meanwhile."""

import io
import shutil
import threading
from pathlib import Path

import pytest

from sds_clip.app.backup.backup import SCRATCH, write_backup
from sds_clip.app.backup.links import Links
from sds_clip.app.backup.named import Named, What
from sds_clip.app.backup.restore import restore_backup
from sds_clip.app.backup.scratch import BackupError
from sds_clip.app.datasets.folders import DatasetFolders
from sds_clip.app.edge.session import SECRET_FILE, Sessions
from sds_clip.app.removal import remove_version_files
from sds_clip.app.store.records import Lease, Move
from sds_clip.app.store.states import JobKind, JobStatus
from sds_clip.worker.folders import JobFolder
from tests.app.backup.conftest import MakeSystem
from tests.app.backup.contents import REPORT, Made, System
from tests.databases import KINDS


def backup(system: System) -> bytes:
    archive = io.BytesIO()
    holds = write_backup(system.store.database, system.data_dir, archive)
    assert holds.missing == []
    return archive.getvalue()


def restore(archive: bytes, system: System) -> None:
    restore_backup(io.BytesIO(archive), system.store.database, system.data_dir)


@pytest.mark.parametrize("target", KINDS)
def test_restored_rows_and_files_are_those_that_were_there(
    system: System, made: Made, make_system: MakeSystem, target: str
) -> None:
    other = make_system(target)
    restore(backup(system), other)
    assert other.rows() == system.rows()
    left_out = made.deleted_set, "step-00000010"
    assert other.files() == {
        name: content
        for name, content in system.files().items()
        if not any(part in left_out for part in Path(name).parts)
    }
    assert other.check().problems == []
    assert (other.data_dir / "datasets" / "sets" / made.archive_set / "files" / "images" / "empty").is_dir()
    assert not [path for path in system.data_dir.glob(f"{SCRATCH}/*") if path.name != "lock"]


def test_back_and_forth_between_the_databases_changes_nothing(
    system: System, made: Made, make_system: MakeSystem
) -> None:
    rows, archive = system.rows(), backup(system)
    for kind in ("sqlite", "postgresql", "sqlite"):
        other = make_system(kind)
        restore(archive, other)
        assert other.rows() == rows
        archive = backup(other)


def test_the_secret_of_sessions_is_in_no_backup_and_in_nobodys_way(
    system: System, made: Made, empty: System
) -> None:
    secrets = []
    for data_dir in (system.data_dir, empty.data_dir):
        Sessions(data_dir / SECRET_FILE, lifetime_s=60).start("0" * 64)
        secrets.append((data_dir / SECRET_FILE).read_bytes())
    report = system.check()
    assert (list(report.problems), list(report.unnamed)) == ([], [])
    archive = backup(system)
    assert secrets[0] not in archive
    assert SECRET_FILE.encode() not in archive
    restore(archive, empty)
    assert (empty.data_dir / SECRET_FILE).read_bytes() == secrets[1]


def test_a_restored_system_goes_on(system: System, made: Made, empty: System) -> None:
    empty.store.migrate()  # tables without rows may be there
    restore(backup(system), empty)
    store = empty.store
    numbers = [each.id for each in store.aliases.promotions()]
    store.aliases.roll_back(Move("default", "me", "a test", 2))
    assert store.aliases.promotions()[0].id == max(numbers) + 1
    assert empty.publish("four")
    assert empty.submit()


def test_a_running_job_continues_from_its_newest_checkpoint(
    system: System, made: Made, empty: System
) -> None:
    restore(backup(system), empty)
    before = empty.store.jobs.get(made.running)
    assert before.status is JobStatus.RUNNING
    empty.store.jobs._clock = empty.store.leases._clock = lambda: (before.lease_until or 0) + 1
    job = empty.store.leases.claim(JobKind.FINETUNE, "another slot", 60)
    while job is not None and job.id != made.running:
        job = empty.store.leases.claim(JobKind.FINETUNE, "another slot", 60)
    assert job is not None
    assert (job.fence, job.interruptions) == (before.fence + 1, before.interruptions + 1)
    assert JobFolder(empty.data_dir / "jobs", Lease.of(job)).take_over() == 20


def test_what_is_deleted_while_it_is_linked_is_not_in_the_backup(
    system: System, made: Made, empty: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    doomed = system.publish("deleted meanwhile")
    take = Links.take

    def delete_first(links: Links, named: Named) -> bool:
        folder = system.data_dir / "versions" / doomed
        if folder.exists():
            system.store.versions.delete(doomed)
            assert remove_version_files(system.store, folder)
            system.store.datasets.delete(made.shard_set)
            DatasetFolders(system.data_dir / "datasets").remove(made.shard_set)
        return take(links, named)

    monkeypatch.setattr(Links, "take", delete_first)
    restore(backup(system), empty)
    assert empty.store.versions.get(doomed).status == "deleted"
    assert empty.check().problems == []


def test_a_job_that_ends_while_its_checkpoint_is_linked_is_in_the_backup_as_ended(
    system: System, made: Made, empty: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    take = Links.take
    lease = Lease.of(system.store.jobs.get(made.running))

    def end_first(links: Links, named: Named) -> bool:
        if system.store.jobs.get(made.running).status is JobStatus.RUNNING:
            version = system.publish("the job's")
            system.store.leases.succeed(lease, result={"version": version})
            JobFolder(system.data_dir / "jobs", lease).drop()
        return take(links, named)

    monkeypatch.setattr(Links, "take", end_first)
    restore(backup(system), empty)
    assert empty.store.jobs.get(made.running).status is JobStatus.SUCCEEDED
    assert empty.check().problems == []


def test_missing_files_do_not_prevent_a_backup_and_are_named(
    system: System, made: Made, empty: System
) -> None:
    shutil.rmtree(system.data_dir / "versions" / made.version)
    archive = io.BytesIO()
    holds = write_backup(system.store.database, system.data_dir, archive)
    assert holds.missing == [{"what": What.VERSION, "id": made.version}]
    restored = restore_backup(io.BytesIO(archive.getvalue()), empty.store.database, empty.data_dir)
    assert restored.missing == [{"what": "version", "id": made.version}]
    assert [each.id for each in empty.check().problems] == [made.version]


def test_backups_beside_writers_are_consistent(system: System, made: Made, make_system: MakeSystem) -> None:
    stop = threading.Event()
    failures: list[BaseException] = []

    def write() -> None:
        try:
            number = 0
            while not stop.is_set():
                number += 1
                version = system.publish(f"version {number}")
                dataset = system.add_archive()
                job = system.claim(system.submit(JobKind.EVALUATE, versions=(version,)))
                system.store.leases.succeed(Lease.of(job), result={"files": {"report": system.report(job)}})
                system.store.versions.delete(version)
                remove_version_files(system.store, system.data_dir / "versions" / version)
                system.store.datasets.delete(dataset)
                DatasetFolders(system.data_dir / "datasets").remove(dataset)
        except BaseException as error:
            failures.append(error)
            raise

    writer = threading.Thread(target=write)
    writer.start()
    try:
        archives = [backup(system) for _ in range(4)]
    finally:
        stop.set()
        writer.join()
    assert failures == []
    for archive in archives:
        other = make_system("sqlite")
        restore(archive, other)
        assert other.check().problems == []
        assert other.check().unnamed == []
        assert any(name.endswith(REPORT) for name in other.files())


def test_a_full_disk_leaves_the_system_as_it_was(system: System, made: Made) -> None:
    class Full(io.RawIOBase):
        def writable(self) -> bool:
            return True

        def write(self, data: object) -> int:
            raise OSError(28, "No space left on device")

    before = system.rows(), system.files()
    with pytest.raises(OSError, match="No space left"):
        write_backup(system.store.database, system.data_dir, Full())  # type: ignore[arg-type]
    assert (system.rows(), system.files()) == before
    assert [path.name for path in (system.data_dir / SCRATCH).iterdir()] == ["lock"]


def test_two_backups_at_once_are_refused(system: System, made: Made) -> None:
    class Nested(io.BytesIO):
        def write(self, data: object) -> int:
            write_backup(system.store.database, system.data_dir, io.BytesIO())
            raise AssertionError("the second backup was not refused")

    with pytest.raises(BackupError, match="Another process"):
        write_backup(system.store.database, system.data_dir, Nested())
