"""A restore takes nothing from an archive that is damaged, incomplete or hostile, and overwrites nothing."""

import hashlib
import io
import json
import re
import tarfile
from collections.abc import Callable, Iterator

import pytest
from sqlalchemy import update

from sds_clip.app.backup.archive import FILES, HEADER, MANIFEST, ROWS
from sds_clip.app.backup.backup import write_backup
from sds_clip.app.backup.restore import SCRATCH, restore_backup
from sds_clip.app.backup.scratch import BackupError
from sds_clip.app.errors import ConfigurationError
from sds_clip.app.store.tables import jobs
from tests.app.backup.conftest import MakeSystem
from tests.app.backup.contents import Made, System
from tests.databases import Databases

Members = list[tuple[tarfile.TarInfo, bytes]]


@pytest.fixture(scope="module")
def system(sqlite_databases: Databases, tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """The archive is read before a database is written, so one kind is enough."""
    system = System(sqlite_databases.url(sqlite_databases.empty()), tmp_path_factory.mktemp("system"))
    yield system
    system.close()


@pytest.fixture(scope="module")
def made(system: System) -> Made:
    return system.fill()


@pytest.fixture(scope="module")
def archive(system: System, made: Made) -> bytes:
    out = io.BytesIO()
    write_backup(system.store.database, system.data_dir, out)
    return out.getvalue()


@pytest.fixture(scope="module")
def empty(sqlite_databases: Databases, tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """What nothing is restored into, by all tests of this file."""
    folder = tmp_path_factory.mktemp("empty")
    empty = System(sqlite_databases.url(sqlite_databases.empty()), folder / "data")
    yield empty
    empty.close()


def refused(archive: bytes, empty: System, match: str, error: type[ValueError] = BackupError) -> None:
    with pytest.raises(error, match=match):
        restore_backup(io.BytesIO(archive), empty.store.database, empty.data_dir)
    assert empty.rows() == []
    assert empty.files() == {}
    assert [path.name for path in (empty.data_dir / SCRATCH).iterdir()] == ["lock"]


def members(archive: bytes) -> Members:
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        return [(info, tar.extractfile(info).read() if info.isfile() else b"") for info in tar]  # type: ignore[union-attr]


def packed(content: Members) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for info, data in content:
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


def plain(name: str, kind: bytes = tarfile.REGTYPE, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def with_manifest(content: Members) -> bytes:
    """Pack the members with a manifest that fits them, as somebody hostile would."""
    files = {
        info.name: {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}
        for info, data in content
        if info.isfile() and info.name != MANIFEST
    }
    manifest = json.dumps({"format": 1, "files": files, "missing": []}).encode()
    return packed([*(each for each in content if each[0].name != MANIFEST), (plain(MANIFEST), manifest)])


def edited(archive: bytes, name: str, change: Callable[[bytes], bytes]) -> bytes:
    return with_manifest(
        [(info, change(data) if info.name == name else data) for info, data in members(archive)]
    )


@pytest.mark.parametrize("part", [HEADER, ROWS, FILES, MANIFEST])
def test_a_flipped_byte_is_found(archive: bytes, empty: System, part: str) -> None:
    changed = [
        (
            info,
            data[:-3] + bytes([data[-3] ^ 1]) + data[-2:]
            if info.name.startswith(part) and len(data) > 3
            else data,
        )
        for info, data in members(archive)
    ]
    refused(packed(changed), empty, "damaged or incomplete")


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 0.99])
def test_an_archive_that_was_cut_off_is_incomplete(archive: bytes, empty: System, share: float) -> None:
    end = archive.rindex(b'{"format": 1, "files"')
    refused(archive[: int(end * share)], empty, "damaged or incomplete")


def test_an_archive_without_its_manifest_was_never_finished(archive: bytes, empty: System) -> None:
    refused(packed([each for each in members(archive) if each[0].name != MANIFEST]), empty, "never finished")


def test_something_else_is_no_backup(empty: System) -> None:
    refused(b"", empty, "no backup of this program")
    refused(b"SQLite format 3\0" * 100, empty, "no backup of this program")


@pytest.mark.parametrize("place", ["before the manifest", "after the manifest"])
def test_an_added_file_is_found(archive: bytes, made: Made, empty: System, place: str) -> None:
    added = (plain(f"{FILES}/versions/{made.version}/added"), b"added")
    content = members(archive)
    content.insert(len(content) - (place == "before the manifest"), added)
    refused(packed(content), empty, "is not the file that was written|after the manifest")


def test_a_removed_file_and_one_that_is_there_twice_are_found(
    archive: bytes, made: Made, empty: System
) -> None:
    content = members(archive)
    place = next(index for index, (info, _) in enumerate(content) if info.name.endswith("model.safetensors"))
    refused(packed(content[:place] + content[place + 1 :]), empty, "is not the file that was written")
    refused(packed([*content[:place], content[place], *content[place:]]), empty, "is there twice")


HOSTILE = {
    "absolute": plain("/etc/passwd"),
    "dots": plain(f"{FILES}/versions/../../outside"),
    "elsewhere": plain("outside"),
    "unnamed": plain(f"{FILES}/versions/other/file"),
    "state": plain(f"{FILES}/state/aliases.json"),
    "symbolic link": plain(f"{FILES}/jobs/x", tarfile.SYMTYPE, "/etc"),
    "hard link": plain(f"{FILES}/jobs/x", tarfile.LNKTYPE, "/etc/passwd"),
    "device": plain(f"{FILES}/jobs/x", tarfile.CHRTYPE),
    "pipe": plain(f"{FILES}/jobs/x", tarfile.FIFOTYPE),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_members_are_refused(archive: bytes, empty: System, name: str) -> None:
    refused(with_manifest([*members(archive), (HOSTILE[name], b"")]), empty, "damaged or incomplete")
    assert list(empty.data_dir.parent.iterdir()) == [empty.data_dir]


@pytest.mark.parametrize(
    "path", ["../../etc", "/etc", "versions/..", "versions/a/../../../etc", "state", "jobs"]
)
def test_rows_may_not_name_files_outside(archive: bytes, made: Made, empty: System, path: str) -> None:
    changed = edited(
        archive, ROWS, lambda rows: rows.replace(f"versions/{made.version}".encode(), path.encode())
    )
    refused(changed, empty, "its rows are wrong")


def changed_row(archive: bytes, table: str, row_id: str, **values: object) -> bytes:
    """The archive with other values in one row, and the id in all rows that refer to it."""

    def change(rows: bytes) -> bytes:
        lines = []
        for line in rows.splitlines():
            content = json.loads(line)
            if content["table"] == table and content["row"]["id"] == row_id:
                content["row"].update(values)
            lines.append(json.dumps(content))
        return "\n".join(lines).encode() + b"\n"

    return edited(archive, ROWS, change)


@pytest.mark.parametrize("folder", ["../victim", "/victim", "versions", "jobs/x", "versions/../../victim"])
@pytest.mark.parametrize("status", ["ready", "deleted"])
def test_version_may_not_name_a_folder_outside_whatever_its_status(
    archive: bytes, made: Made, empty: System, folder: str, status: str
) -> None:
    refused(
        changed_row(archive, "versions", made.base, folder=folder, status=status), empty, "rows are wrong"
    )


@pytest.mark.parametrize("bad_id", ["../victim", "/victim", "..", "", "a/b", ".removing.x"])
@pytest.mark.parametrize("table", ["jobs", "datasets", "versions"])
def test_ids_that_are_paths_are_refused_also_where_files_were_removed(
    archive: bytes, made: Made, empty: System, table: str, bad_id: str
) -> None:
    ids = {"jobs": made.measured, "datasets": made.deleted_set, "versions": made.base}
    removed = {"files_removed_at": 1.0} if table == "jobs" else {"status": "deleted"}
    changed = changed_row(archive, table, ids[table], id=bad_id, **removed)
    refused(changed, empty, "cannot name a folder")


def test_report_of_a_job_may_not_be_another_jobs_file(archive: bytes, made: Made, empty: System) -> None:
    files = {"files": {"report": f"jobs/{made.failed}/1/report.html"}}
    changed = changed_row(archive, "jobs", made.measured, result=files, files_removed_at=1.0)
    refused(changed, empty, "its rows are wrong")


@pytest.mark.parametrize("before", [b'{"n": 1}', b"0.3333333333333333"], ids=["job", "event"])
@pytest.mark.parametrize("depth", [101, 900, 5_000, 200_000])
def test_deeply_nested_row_is_an_error_of_the_restore(
    archive: bytes, empty: System, before: bytes, depth: int
) -> None:
    deep = b"[" * depth + b"]" * depth
    refused(edited(archive, ROWS, lambda rows: rows.replace(before, deep)), empty, "its rows are wrong")


def test_row_with_a_status_that_is_not_known_is_an_error_of_the_restore(
    archive: bytes, empty: System
) -> None:
    def unknown(rows: bytes) -> bytes:
        return re.sub(rb'("table": "jobs".*?"status": )"\w+"', rb'\1"exploded"', rows, count=1)

    refused(edited(archive, ROWS, unknown), empty, "the status of a row of the table jobs is 'exploded'")


def test_row_that_is_nested_less_is_restored_and_a_deeper_one_is_in_no_backup(
    archive: bytes, make_system: MakeSystem
) -> None:
    empty = make_system("sqlite")

    def nested(depth: int) -> bytes:
        return edited(archive, ROWS, lambda rows: rows.replace(b'{"n": 1}', b"[" * depth + b"]" * depth))

    restore_backup(io.BytesIO(nested(99)), empty.store.database, empty.data_dir)
    with empty.store.database.writing() as connection:
        request: list[object] = []
        for _ in range(100):
            request = [request]
        connection.execute(update(jobs).values(request=request))
    with pytest.raises(BackupError, match=r"row 'job_\w+' of the table jobs"):
        write_backup(empty.store.database, empty.data_dir, io.BytesIO())


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b'"table": "events"', b'"table": "secrets"'),
        (b'"generation":', b'"other":'),
        (b'"version": "', b'"version": "x'),
        (b'{"table"', b'["table"'),
        (b'"generation": 1', b'"generation": 1' + b"0" * 30),
        (b'"owner": "', b'"owner": "\\ud800'),
    ],
)
def test_rows_that_do_not_fit_the_tables_are_refused(
    archive: bytes, empty: System, before: bytes, after: bytes
) -> None:
    refused(edited(archive, ROWS, lambda rows: rows.replace(before, after)), empty, "its rows are wrong")


def test_a_backup_of_a_newer_release_is_refused_as_a_newer_database_is(archive: bytes, empty: System) -> None:
    def newer(header: bytes) -> bytes:
        return json.dumps({**json.loads(header), "revision": "9999"}).encode()

    refused(edited(archive, HEADER, newer), empty, "A newer version", ConfigurationError)
    refused(
        edited(archive, HEADER, lambda header: header.replace(b'"format": 1', b'"format": 2')),
        empty,
        "A newer version",
    )


def test_what_is_in_the_way_is_named_and_kept(
    archive: bytes, system: System, made: Made, empty: System
) -> None:
    before = system.rows(), system.files()
    with pytest.raises(BackupError, match=r"not empty: there are rows in .*jobs \(9\)"):
        restore_backup(io.BytesIO(archive), system.store.database, empty.data_dir)
    with pytest.raises(BackupError, match="is in the way"):
        restore_backup(io.BytesIO(archive), empty.store.database, system.data_dir)
    assert (system.rows(), system.files()) == before
    assert empty.rows() == []
