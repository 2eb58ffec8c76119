"""A backup or a restore that is killed harms nothing, and the next one does what it should have done."""

import io
import json
from pathlib import Path

import pytest

from sds_clip.app.backup import backup, restore
from sds_clip.app.backup.backup import write_backup
from sds_clip.app.backup.scratch import scratch_folder
from sds_clip.app.store import Store
from sds_clip.cli import main
from tests.app.backup.contents import Made, System

OF_BACKUP = [
    ("sds_clip.app.backup.links", "Links._take", "after", 2),
    ("sds_clip.app.backup.archive", "ArchiveWriter.add_file", "after", 4),
    ("sds_clip.app.backup.archive", "ArchiveWriter.finish", "after", 1),
]
OF_RESTORE = [
    ("sds_clip.app.backup.archive", "ArchiveReader._write", "after", 3),
    ("sds_clip.app.backup.restore", "replace_tables", "after", 1),
    ("shutil", "move", "after", 2),
    ("sds_clip.app.backup.restore", "_place", "after", 1),
]


def run(system: System, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setenv("SDS_CLIP_DATABASE_URL", system.url)
    monkeypatch.setenv("SDS_CLIP_DATA_DIR", str(system.data_dir))
    return main(arguments)


def left(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()] if folder.is_dir() else []


@pytest.mark.parametrize("point", OF_BACKUP, ids=lambda point: point[1])
def test_a_killed_backup_leaves_no_file_and_the_next_one_cleans_up(
    system: System,
    made: Made,
    empty: System,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    point: tuple[str, str, str, int],
) -> None:
    file = tmp_path / "out" / "backup.tar"
    file.parent.mkdir()
    before = system.rows(), system.files()
    system.kill(point, "backup", str(file))
    assert not file.exists()
    assert (system.rows(), system.files()) == before
    assert run(system, monkeypatch, "backup", str(file)) == 0
    assert left(file.parent) == [file.name]
    assert left(system.data_dir / backup.SCRATCH) == ["lock"]
    assert run(empty, monkeypatch, "restore", str(file)) == 0
    assert empty.rows() == before[0]


@pytest.mark.parametrize("point", OF_RESTORE, ids=lambda point: point[1])
def test_a_killed_restore_shows_no_row_and_can_be_repeated(
    system: System,
    made: Made,
    empty: System,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    point: tuple[str, str, str, int],
) -> None:
    file = tmp_path / "backup.tar"
    with file.open("wb") as out:
        write_backup(system.store.database, system.data_dir, out)
    empty.kill(point, "restore", str(file))
    assert empty.rows() == []
    assert run(empty, monkeypatch, "restore", str(file)) == 0
    assert empty.rows() == system.rows()
    assert empty.check().problems == []
    assert left(empty.data_dir / restore.SCRATCH) == ["lock"]


def test_a_restore_that_was_killed_after_its_end_is_not_undone(
    system: System, made: Made, empty: System, tmp_path: Path
) -> None:
    archive = io.BytesIO()
    write_backup(system.store.database, system.data_dir, archive)
    restore.restore_backup(io.BytesIO(archive.getvalue()), empty.store.database, empty.data_dir)
    files = empty.files()
    # What is there until the moment after the commit.
    placed = {"database": empty.store.database.name, "folders": [f"versions/{made.version}"]}
    (empty.data_dir / restore.SCRATCH / "placed.json").write_text(json.dumps(placed))
    with pytest.raises(restore.BackupError, match="not empty"):
        restore.restore_backup(io.BytesIO(archive.getvalue()), empty.store.database, empty.data_dir)
    assert empty.files() == files
    another = Store(f"sqlite:///{tmp_path / 'another.db'}")
    with pytest.raises(restore.BackupError, match="is in the way"):
        restore.restore_backup(io.BytesIO(archive.getvalue()), another.database, empty.data_dir)
    another.close()
    assert empty.files() == files


def test_a_backup_that_waits_for_its_turn_leaves_the_other_ones_file(
    system: System, made: Made, tmp_path: Path
) -> None:
    file = tmp_path / "out" / "backup[1].tar"
    beside = file.with_name(".backup[1].tar.0123abcd")
    beside.parent.mkdir()
    beside.write_bytes(b"half of a backup")
    with (
        scratch_folder(system.data_dir / backup.SCRATCH),
        pytest.raises(restore.BackupError, match="Another process"),
    ):
        backup.write_backup_file(system.store.database, system.data_dir, file)
    assert beside.exists()
    backup.write_backup_file(system.store.database, system.data_dir, file)
    assert left(file.parent) == [file.name]
