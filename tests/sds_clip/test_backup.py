"""`sds-clip backup`, `restore` and `check`, as an operator types them."""

import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from sds_clip.app.registry.local_state import LocalState
from sds_clip.app.store.records import Alias
from sds_clip.cli import main
from sds_clip.database import embedded_database
from tests.app.backup.contents import Made, System
from tests.disks import small_disk
from tests.sds_clip.transcript import test_transcript  # noqa: F401


@pytest.fixture
def system(tmp_path: Path) -> Iterator[System]:
    """The data folder of `sds-clip up`, with its database."""
    system = System(embedded_database(tmp_path / "data"), tmp_path / "data")
    yield system
    system.close()


@pytest.fixture
def made(system: System, monkeypatch: pytest.MonkeyPatch) -> Made:
    made = system.fill()
    monkeypatch.setenv("VERSION", made.version)
    return made


def backup(file: Path, system: System) -> int:
    return main(["backup", str(file), "--data-dir", str(system.data_dir)])


def restore(file: Path, folder: Path) -> int:
    return main(["restore", str(file), "--data-dir", str(folder)])


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
