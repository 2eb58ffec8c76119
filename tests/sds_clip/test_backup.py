"""`sds-clip backup`, `restore` and `check`, as an operator types them."""

import json
import os
import resource
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.registry.local_state import LocalState
from app.store.records import Alias
from sds_clip.cli import main
from sds_clip.database import embedded_database
from tests.app.backup.contents import Made, System
from tests.disks import small_disk


@pytest.fixture
def system(tmp_path: Path) -> Iterator[System]:
    """The data folder of `sds-clip up`, with its database."""
    system = System(embedded_database(tmp_path / "data"), tmp_path / "data")
    yield system
    system.close()


@pytest.fixture
def made(system: System) -> Made:
    return system.fill()


def backup(file: Path, system: System) -> int:
    return main(["backup", str(file), "--data-dir", str(system.data_dir)])


def restore(file: Path, folder: Path) -> int:
    return main(["restore", str(file), "--data-dir", str(folder)])


def test_a_backup_says_what_it_holds_and_is_for_its_owner_alone(
    system: System, made: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, restored = tmp_path / "backup.tar", tmp_path / "restored"
    assert backup(file, system) == 0
    assert "It holds 4 jobs, 5 data sets, 5 versions, and" in capsys.readouterr().err
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert restore(file, restored) == 0
    assert "Restored 4 jobs, 5 data sets, 5 versions, and" in capsys.readouterr().err
    assert main(["check", "--data-dir", str(restored)]) == 0
    assert "Problems: 0." in capsys.readouterr().err


@pytest.mark.long
def test_standard_output_and_input_make_a_pipe(system: System, made: Made, tmp_path: Path) -> None:
    program = [sys.executable, "-m", "sds_clip"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(
        [*program, "backup", "-", "--data-dir", str(system.data_dir)], stdout=subprocess.PIPE, env=environment
    ) as source:
        done = subprocess.run(
            [*program, "restore", "-", "--data-dir", str(tmp_path / "restored")],
            stdin=source.stdout,
            env=environment,
        )
    assert (source.returncode, done.returncode) == (0, 0)
    restored = System(embedded_database(tmp_path / "restored"), tmp_path / "restored")
    assert restored.rows() == system.rows()
    restored.close()


def test_a_full_disk_leaves_no_file(system: System, made: Made, tmp_path: Path) -> None:
    system.publish("x" * 5000)  # a file of five megabytes
    out = tmp_path / "out"
    out.mkdir()
    done = subprocess.run(
        [sys.executable, "-m", "sds_clip", "backup", str(out / "b.tar"), "--data-dir", str(system.data_dir)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, 2**20)),
        stderr=subprocess.PIPE,
        text=True,
    )
    assert (done.returncode, done.stderr) == (
        2,
        "sds-clip: The disk is full (File too large), so nothing was kept. Free some space, and try again.\n",
    )
    assert list(out.iterdir()) == []


def test_a_full_data_disk_leaves_no_file_and_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The snapshot of an SQLite database needs room beside it, also if the backup goes to another disk."""
    out = tmp_path / "out"
    out.mkdir()
    with small_disk(tmp_path / "disk", "64m") as disk:
        data_dir = disk.path / "data"
        system = System(embedded_database(data_dir), data_dir)
        system.fill()
        before = system.rows(), system.files()
        disk.fill()
        assert backup(out / "backup.tar", system) == 2
        assert capsys.readouterr().err.startswith("sds-clip: The disk is full")
        assert list(out.iterdir()) == []
        disk.free()
        assert (system.rows(), system.files()) == before
        assert backup(out / "backup.tar", system) == 0
        system.close()


def test_missing_files_make_the_backup_end_with_1(
    system: System, made: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree(system.data_dir / "versions" / made.version)
    assert backup(tmp_path / "backup.tar", system) == 1
    assert f"The files of the version {made.version} were missing" in capsys.readouterr().err


def test_a_service_that_has_seen_newer_aliases_is_told_of(
    system: System, made: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    restored = tmp_path / "restored"
    for name, generation in (("newer", 3), ("as-new", 2)):
        state = LocalState(restored / "state" / name)
        state.record([Alias("default", made.version, generation)])
        state.close()
    assert backup(tmp_path / "backup.tar", system) == 0
    assert restore(tmp_path / "backup.tar", restored) == 0
    said = capsys.readouterr().err
    assert (
        f"{restored / 'state' / 'newer' / 'aliases.json'} was written by a service that has read newer"
        in said
    )
    assert "as-new" not in said


def test_a_restore_into_what_is_there_is_refused(
    system: System, made: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert backup(tmp_path / "backup.tar", system) == 0
    assert restore(tmp_path / "backup.tar", system.data_dir) == 2
    assert "The database is not empty: there are rows in" in capsys.readouterr().err


def test_without_a_database_there_is_nothing_to_back_up(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for command in (["backup", str(tmp_path / "backup.tar")], ["check"]):
        assert main([*command, "--data-dir", str(tmp_path)]) == 2
        assert "There is no database" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_the_check_prints_a_line_for_each_problem_with_what_to_do(
    system: System, made: Made, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree(system.data_dir / "versions" / made.version)
    (system.data_dir / "jobs" / "job_unknown").mkdir()
    assert main(["check", "--data-dir", str(system.data_dir)]) == 1
    problem, unknown = capsys.readouterr().out.splitlines()
    assert problem.startswith(f"version {made.version}: The folder")
    assert "Restore it from a backup, or delete the version" in problem
    assert unknown.endswith("job_unknown: the database does not know this folder.")


def test_the_check_as_json(system: System, made: Made, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "--quick", "--json", "--data-dir", str(system.data_dir)]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["problems"] == report["unnamed"] == []
    assert report["checked"]["version"] == 3
