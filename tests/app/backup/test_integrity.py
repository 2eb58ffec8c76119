"""The check finds what is missing or damaged, and says what to do."""

import io
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import update

from sds_clip.app.backup.backup import write_backup
from sds_clip.app.backup.integrity import check_integrity
from sds_clip.app.backup.scratch import BackupError
from sds_clip.app.datasets.folders import DatasetFolders
from sds_clip.app.removal import remove_version_files
from sds_clip.app.store.records import Lease
from sds_clip.app.store.states import JobKind
from sds_clip.app.store.tables import jobs, versions
from tests.app.backup.contents import REPORT, Made, System


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def problems(system: System, *, is_quick: bool = False) -> list[tuple[str, str]]:
    report = check_integrity(system.store.database, system.data_dir, is_quick=is_quick)
    assert all(re.search("Restore it|Upload it|Publish", each.problem) for each in report.problems)
    return [(each.what, each.id) for each in report.problems]


def test_a_whole_system_has_no_problems(system: System, made: Made) -> None:
    report = system.check()
    assert (list(report.problems), list(report.unnamed)) == ([], [])
    assert report.checked == {
        "version": 3, "data set": 2, "upload": 1, "report": 1, "job": 5, "alias": 1
    }  # fmt: skip


def test_missing_folders_are_found(system: System, made: Made) -> None:
    for folder in (
        f"versions/{made.version}",
        f"datasets/sets/{made.archive_set}",
        f"datasets/sets/{made.shard_set}",
        f"datasets/uploads/{made.upload}",
        f"jobs/{made.measured}",
    ):
        shutil.rmtree(system.data_dir / folder)
    expected = {
        ("version", made.version),
        ("data set", made.archive_set),
        ("data set", made.shard_set),
        ("upload", made.upload),
        ("report", made.measured),
    }
    assert set(problems(system)) == expected
    assert set(problems(system, is_quick=True)) == expected


FILES: dict[str, Callable[[Made], tuple[str, tuple[str, str]]]] = {
    "version": lambda made: (f"versions/{made.version}/model.safetensors", ("version", made.version)),
    "archive": lambda made: (
        f"datasets/sets/{made.archive_set}/files/images/\u00e9.png",
        ("data set", made.archive_set),
    ),
    "shard": lambda made: (f"datasets/sets/{made.shard_set}/shards/000001.tar", ("data set", made.shard_set)),
    "checkpoint": lambda made: (
        f"jobs/{made.running}/1/run/checkpoints/step-00000020/state.safetensors",
        ("job", made.running),
    ),
}


def test_a_flipped_byte_is_found_unless_the_check_is_quick(system: System, made: Made) -> None:
    for of in FILES.values():
        file, expected = of(made)
        flip(system.data_dir / file)
        assert problems(system) == [expected]
        assert problems(system, is_quick=True) == []
        flip(system.data_dir / file)  # as it was


def test_a_removed_file_is_found_also_by_a_quick_check(system: System, made: Made) -> None:
    for of in FILES.values():
        file, expected = of(made)
        content = (system.data_dir / file).read_bytes()
        (system.data_dir / file).unlink()
        assert problems(system) == problems(system, is_quick=True) == [expected]
        (system.data_dir / file).write_bytes(content)


def test_folders_that_the_database_does_not_know_are_listed_and_are_no_problem(
    system: System, made: Made
) -> None:
    unknown = [f"versions/{'f' * 64}", "datasets/sets/ds_unknown", "jobs/job_unknown"]
    for folder in [*unknown, "versions/.publishing.job.1"]:
        (system.data_dir / folder).mkdir()
    report = system.check()
    assert list(report.problems) == []
    assert list(report.unnamed) == unknown


def test_a_check_beside_deletions_reports_none_of_them(
    system: System, made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    doomed = system.publish("doomed")
    from sds_clip.app.backup import integrity

    named_by = integrity.named_by

    def delete_first(rows: object) -> object:
        if (folder := system.data_dir / "versions" / doomed).exists():
            system.store.versions.delete(doomed)
            remove_version_files(system.store, folder)
            system.store.datasets.delete(made.shard_set)
            DatasetFolders(system.data_dir / "datasets").remove(made.shard_set)
            job = system.claim(system.submit(JobKind.EVALUATE))
            system.store.leases.succeed(Lease.of(job), result={"files": {"report": system.report(job)}})
        return named_by(rows)  # type: ignore[arg-type]

    monkeypatch.setattr(integrity, "named_by", delete_first)
    report = system.check()
    assert (list(report.problems), list(report.unnamed)) == ([], [])
    assert any(name.endswith(REPORT) for name in system.files())


def test_rows_that_name_paths_elsewhere_are_listed_and_the_check_goes_on(system: System, made: Made) -> None:
    with system.store.database.writing() as connection:
        connection.execute(
            update(versions).where(versions.c.id == made.version).values(folder="../../victim")
        )
        files = {"files": {"report": "jobs/other/1/report.html"}}
        connection.execute(update(jobs).where(jobs.c.id == made.measured).values(result=files))
    shutil.rmtree(system.data_dir / "datasets" / "sets" / made.shard_set)

    report = system.check()

    found = {(each.what, each.id): each.problem for each in report.problems}
    assert set(found) == {("version", made.version), ("job", made.measured), ("data set", made.shard_set)}
    assert "'../../victim'" in found["version", made.version]
    assert "jobs/other/1/report.html" in found["job", made.measured]
    assert all("Correct the row" in found[each] for each in found if each[0] != "data set")
    assert list(report.unnamed) == []
    with pytest.raises(BackupError, match=f"(version '{made.version}'|job '{made.measured}') names the path"):
        write_backup(system.store.database, system.data_dir, io.BytesIO())


def test_backup_names_what_is_behind_a_link(system: System, made: Made, tmp_path: Path) -> None:
    folder = system.data_dir / "versions" / made.version
    folder.rename(tmp_path / "elsewhere")
    folder.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(BackupError, match=f"version {made.version}: .* behind a link"):
        write_backup(system.store.database, system.data_dir, io.BytesIO())
