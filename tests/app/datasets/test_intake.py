"""From an upload to a data set, with what a crash may leave in between."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from sds_clip.app.datasets.check import CheckResult, check_registered, check_upload
from sds_clip.app.datasets.folders import ARCHIVE, SHARDS, Content, DatasetFolders, set_content, shard_name
from sds_clip.app.datasets.hashes import first_wrong_file
from sds_clip.app.datasets.limits import ArchiveLimits
from sds_clip.app.datasets.roots import SourceRoots
from sds_clip.app.errors import DatasetBusy
from sds_clip.worker.dataset_checks import check_benchmark
from tests.app.datasets.archives import END, pax, tar_entry, tar_of, tree, zip_of
from tests.app.datasets.winoground_sets import item, save_set
from tests.pictures import picture

check_winoground = partial(check_benchmark, "winoground", 0.0)


@pytest.fixture
def folders(tmp_path: Path) -> DatasetFolders:
    return DatasetFolders(tmp_path / "datasets")


@pytest.fixture
def files(tmp_path: Path) -> dict[str, bytes]:
    return tree(save_set(tmp_path / "source", [item(0), item(1)]))


def uploaded(folders: DatasetFolders, data: bytes) -> None:
    with folders.claim("ds_1") as claim:
        (claim.folder / ARCHIVE).write_bytes(data)
        claim.keep_upload()


def count_shards(content: Content, *, progress: object = None) -> CheckResult:
    """A checker that takes any shards."""
    assert not content.is_folder
    return CheckResult(True, "hash", {"shards": len(content.paths)}, (), 0)


def left(folders: DatasetFolders) -> list[str]:
    return sorted(tree(folders.work.parent))


@pytest.mark.parametrize("pack", [tar_of, zip_of])
def test_good_archive_becomes_a_data_set(
    folders: DatasetFolders, files: dict[str, bytes], pack: Callable[[dict[str, bytes]], bytes]
) -> None:
    uploaded(folders, pack({f"winoground/{name}": content for name, content in files.items()}))
    recorded: list[CheckResult] = []
    result = check_upload(folders, "ds_1", check_winoground, recorded.append)
    assert recorded == [result]
    assert result.ready
    assert left(folders) == [
        *sorted(f"sets/ds_1/files/winoground/{name}" for name in files),
        "sets/ds_1/samples.sqlite3",
        "sets/ds_1/sha256.json",
    ]
    assert first_wrong_file(folders.content("ds_1"), is_quick=False) is None
    again = check_winoground(set_content(folders.content("ds_1")))
    assert replace(again, size_bytes=sum(map(len, files.values()))) == result


def test_rejected_archives_leave_nothing_and_say_why(
    folders: DatasetFolders, files: dict[str, bytes]
) -> None:
    broken = {**files, "images/ex_0_img_0.png": b"no image"}
    for data, code in (
        (tar_entry(b"../../evil", b"1"), "archive_member_unsafe"),
        (b"no archive", "archive_format"),
        (b"", "upload_empty"),
        (tar_of({"a": b"1"}), "invalid_benchmark"),
        (tar_of(broken), "image_format"),
        (tar_of({"a": bytes(300)}), "archive_too_large"),
    ):
        uploaded(folders, data)
        limits = ArchiveLimits(max_file_bytes=299) if code == "archive_too_large" else ArchiveLimits()
        recorded: list[CheckResult] = []
        check_upload(folders, "ds_1", check_winoground, recorded.append, limits=limits)
        (result,) = recorded
        assert (result.ready, result.content_hash, result.problems[0].code) == (False, None, code)
        assert left(folders) == []


def test_crash_before_the_record_is_committed_is_made_good_by_another_check(
    folders: DatasetFolders, files: dict[str, bytes]
) -> None:
    def crash(_: CheckResult) -> None:
        raise ConnectionError

    uploaded(folders, zip_of(files))
    with pytest.raises(ConnectionError):
        check_upload(folders, "ds_1", check_winoground, crash)
    assert "uploads/ds_1/archive" in left(folders)
    recorded: list[CheckResult] = []
    assert check_upload(folders, "ds_1", check_winoground, recorded.append).ready
    beside = ["sets/ds_1/samples.sqlite3", "sets/ds_1/sha256.json"]
    assert left(folders) == [*sorted(f"sets/ds_1/files/{name}" for name in files), *beside]


def test_shards_are_kept_as_they_are_even_over_a_crash(folders: DatasetFolders) -> None:
    shards = {shard_name(k): tar_of({f"{k}.png": picture(k), f"{k}.txt": b"a"}) for k in range(3)}
    with folders.claim("ds_1") as claim:
        (claim.folder / SHARDS).mkdir()
        for name, data in shards.items():
            (claim.folder / SHARDS / name).write_bytes(data)
        claim.keep_upload()

    def crash(_: CheckResult) -> None:
        raise ConnectionError

    with pytest.raises(ConnectionError):
        check_upload(folders, "ds_1", count_shards, crash)
    assert check_upload(folders, "ds_1", count_shards, lambda _: None).counts == {"shards": 3}
    assert tree(folders.content("ds_1") / SHARDS) == shards
    assert left(folders) == ["sets/ds_1/samples.sqlite3", *(f"sets/ds_1/shards/{name}" for name in shards)]


def test_bad_shard_rejects_the_upload(folders: DatasetFolders) -> None:
    with folders.claim("ds_1") as claim:
        (claim.folder / SHARDS).mkdir()
        (claim.folder / SHARDS / shard_name(0)).write_bytes(tar_entry(b"a", type=b"2"))
        claim.keep_upload()
    result = check_upload(folders, "ds_1", count_shards, lambda _: None)
    assert result.problems[0].code == "archive_member_unsafe"
    assert left(folders) == []


TARS = {
    "archive_member_unsafe": tar_entry(b"a", type=b"2") + END,
    "archive_member_duplicate": tar_of({"a": b"1"})[:1024] + tar_of({"a": b"2"}),
    "archive_too_large": pax({b"comment": bytes(2**20)}) + tar_of({"a": b"1"}),
    "archive_truncated": tar_of({"a": b"1"})[:1024],
    "archive_format": b"no tar",
}


@pytest.mark.parametrize("code", TARS)
def test_tar_files_in_a_folder_are_held_to_what_shards_are(
    tmp_path: Path, folders: DatasetFolders, files: dict[str, bytes], code: str
) -> None:
    uploaded(folders, zip_of({**files, "test/0.tar": tar_of({"a": b"1"}), "test/1.tar": TARS[code]}))
    (problem,) = check_upload(folders, "ds_1", check_winoground, lambda _: None).problems
    assert (problem.code, problem.message[:14]) == (code, "'test/1.tar': ")
    assert left(folders) == []

    (tmp_path / "source" / "test").mkdir()
    (tmp_path / "source" / "test" / "1.tar").write_bytes(TARS[code])
    roots = SourceRoots([tmp_path / "source"])
    registered = check_registered(roots.resolve(f"{tmp_path}/source"), roots, check_winoground)
    assert registered.problems == (problem,)


def test_tar_files_that_are_good_or_that_nobody_reads_are_kept(
    folders: DatasetFolders, files: dict[str, bytes]
) -> None:
    uploaded(folders, zip_of({**files, "0.tar": tar_of({"a": b"1"}), ".1.tar": b"no tar"}))
    assert check_upload(folders, "ds_1", check_winoground, lambda _: None).ready


def test_tar_files_behind_a_link_are_looked_at(tmp_path: Path, files: dict[str, bytes]) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "0.tar").write_bytes(TARS["archive_member_unsafe"])
    (tmp_path / "source" / "test").symlink_to(tmp_path / "other")
    roots = SourceRoots([tmp_path])
    found = check_registered(roots.resolve(f"{tmp_path}/source"), roots, check_winoground)
    assert [problem.code for problem in found.problems] == ["archive_member_unsafe"]


def test_unpacking_hashing_and_looking_at_shards_are_progress(
    folders: DatasetFolders, files: dict[str, bytes]
) -> None:
    uploaded(folders, zip_of(files))
    seen: list[tuple[int, int]] = []
    check_upload(
        folders, "ds_1", check_winoground, lambda _: None, progress=lambda *state: seen.append(state)
    )
    counts = range(1, len(files) + 1)
    assert seen == [*((count, 0) for count in counts), (4, 4), *((count, len(files)) for count in counts)]
    with folders.claim("ds_1") as claim:
        (claim.folder / SHARDS).mkdir()
        for number in range(2):
            (claim.folder / SHARDS / shard_name(number)).write_bytes(tar_of({"a": b"1"}))
        claim.drop_set()
        claim.keep_upload()
    seen.clear()
    check_upload(folders, "ds_1", count_shards, lambda _: None, progress=lambda *state: seen.append(state))
    assert seen == [(1, 2), (2, 2)]


def test_second_checker_of_one_upload_is_turned_away(
    folders: DatasetFolders, files: dict[str, bytes]
) -> None:
    uploaded(folders, zip_of(files))

    def record(_: CheckResult) -> None:
        with pytest.raises(DatasetBusy):
            check_upload(folders, "ds_1", check_winoground, lambda _: None)

    assert check_upload(folders, "ds_1", check_winoground, record).ready


def test_check_that_is_stopped_leaves_the_upload(folders: DatasetFolders, files: dict[str, bytes]) -> None:
    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    uploaded(folders, zip_of(files))
    with pytest.raises(KeyboardInterrupt):
        check_upload(folders, "ds_1", check_winoground, lambda _: None, progress=stop)
    assert left(folders) == ["uploads/ds_1/archive"]


def test_data_set_removed_before_its_check_is_not_there(
    folders: DatasetFolders, files: dict[str, bytes]
) -> None:
    uploaded(folders, zip_of(files))
    folders.remove("ds_1")
    with pytest.raises(FileNotFoundError):
        check_upload(folders, "ds_1", check_winoground, lambda _: None)
    assert left(folders) == []


def test_registered_folder_and_shards_are_checked_where_they_are(
    tmp_path: Path, files: dict[str, bytes]
) -> None:
    roots = SourceRoots([tmp_path / "source"])
    content = roots.resolve(f"{tmp_path}/source")
    assert check_registered(content, roots, check_winoground).ready
    (tmp_path / "source" / "out").symlink_to("/etc")
    assert check_registered(content, roots, check_winoground).problems[0].code == "source_forbidden"
    (tmp_path / "source" / "0.tar").write_bytes(tar_of({"../a": b"1"}))
    shard = roots.resolve(f"{tmp_path}/source/0.tar")
    assert check_registered(shard, roots, count_shards).problems[0].code == "archive_member_unsafe"
