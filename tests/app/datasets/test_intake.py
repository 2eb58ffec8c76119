"""From an upload to a data set, with what a crash may leave in between."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from sds_clip.app.datasets.archive_limits import ArchiveLimits
from sds_clip.app.datasets.check import CheckResult, check_registered, check_upload
from sds_clip.app.datasets.folders import ARCHIVE, SHARDS, Content, DatasetFolders, set_content, shard_name
from sds_clip.app.datasets.hashes import first_wrong_file
from sds_clip.app.datasets.roots import SourceRoots
from sds_clip.app.errors import DatasetBusy
from sds_clip.worker.benchmarks import check_benchmark
from tests.app.datasets.archives import END, pax, tar_entry, tar_of, tree, zip_of
from tests.app.datasets.winoground_sets import item, save_set
from tests.pictures import picture

check_winoground = partial(check_benchmark, "winoground", 0.0)
Checker = Callable[..., CheckResult]
Record = Callable[[CheckResult], object]


@dataclass
class Intake:
    """The folders of data sets, and the files of a good one that is sent to them."""

    folders: DatasetFolders
    files: dict[str, bytes]

    def upload(self, data: bytes) -> None:
        with self.folders.claim("ds_1") as claim:
            (claim.folder / ARCHIVE).write_bytes(data)
            claim.keep_upload()

    def upload_shards(self, *shards: bytes) -> None:
        with self.folders.claim("ds_1") as claim:
            (claim.folder / SHARDS).mkdir()
            for number, data in enumerate(shards):
                (claim.folder / SHARDS / shard_name(number)).write_bytes(data)
            claim.drop_set()
            claim.keep_upload()

    def check(
        self, checker: Checker = check_winoground, record: Record = lambda _: None, **options: Any
    ) -> CheckResult:
        return check_upload(self.folders, "ds_1", checker, record, **options)

    def left(self) -> list[str]:
        return sorted(tree(self.folders.work.parent))


@pytest.fixture
def intake(tmp_path: Path) -> Intake:
    files = tree(save_set(tmp_path / "source", [item(0), item(1)]))
    return Intake(DatasetFolders(tmp_path / "datasets"), files)


def count_shards(content: Content, *, progress: object = None) -> CheckResult:
    """A checker that takes any shards."""
    assert not content.is_folder
    return CheckResult(True, "hash", {"shards": len(content.paths)}, (), 0)


def crash(_: CheckResult) -> None:
    raise ConnectionError


@pytest.mark.parametrize("pack", [tar_of, zip_of])
def test_good_archive_becomes_a_data_set(intake: Intake, pack: Callable[[dict[str, bytes]], bytes]) -> None:
    intake.upload(pack({f"winoground/{name}": content for name, content in intake.files.items()}))
    recorded: list[CheckResult] = []
    result = intake.check(record=recorded.append)
    assert recorded == [result]
    assert result.ready
    assert intake.left() == [
        *sorted(f"sets/ds_1/files/winoground/{name}" for name in intake.files),
        "sets/ds_1/samples.sqlite3",
        "sets/ds_1/sha256.json",
    ]
    assert first_wrong_file(intake.folders.content("ds_1"), is_quick=False) is None
    again = check_winoground(set_content(intake.folders.content("ds_1")))
    entries = len(intake.files) + 2  # the folders winoground and images
    assert replace(again, size_bytes=sum(map(len, intake.files.values())) + entries * 4096) == result


def test_rejected_archives_leave_nothing_and_say_why(intake: Intake) -> None:
    broken = {**intake.files, "images/ex_0_img_0.png": b"no image"}
    for data, code in (
        (tar_entry(b"../../evil", b"1"), "archive_member_unsafe"),
        (b"no archive", "archive_format"),
        (b"", "upload_empty"),
        (tar_of({"a": b"1"}), "invalid_benchmark"),
        (tar_of(broken), "image_format"),
        (tar_of({"a": bytes(300)}), "archive_too_large"),
    ):
        intake.upload(data)
        limits = ArchiveLimits(max_file_bytes=299) if code == "archive_too_large" else ArchiveLimits()
        recorded: list[CheckResult] = []
        intake.check(record=recorded.append, limits=limits)
        (result,) = recorded
        assert (result.ready, result.content_hash, result.problems[0].code) == (False, None, code)
        assert intake.left() == []


def test_crash_before_the_record_is_committed_is_made_good_by_another_check(intake: Intake) -> None:
    intake.upload(zip_of(intake.files))
    with pytest.raises(ConnectionError):
        intake.check(record=crash)
    assert "uploads/ds_1/archive" in intake.left()
    recorded: list[CheckResult] = []
    assert intake.check(record=recorded.append).ready
    beside = ["sets/ds_1/samples.sqlite3", "sets/ds_1/sha256.json"]
    assert intake.left() == [*sorted(f"sets/ds_1/files/{name}" for name in intake.files), *beside]


def test_shards_are_kept_as_they_are_even_over_a_crash(intake: Intake) -> None:
    shards = {shard_name(k): tar_of({f"{k}.png": picture(k), f"{k}.txt": b"a"}) for k in range(3)}
    intake.upload_shards(*shards.values())

    with pytest.raises(ConnectionError):
        intake.check(count_shards, crash)
    assert intake.check(count_shards).counts == {"shards": 3}
    assert tree(intake.folders.content("ds_1") / SHARDS) == shards
    assert intake.left() == ["sets/ds_1/samples.sqlite3", *(f"sets/ds_1/shards/{name}" for name in shards)]


def test_bad_shard_rejects_the_upload(intake: Intake) -> None:
    intake.upload_shards(tar_entry(b"a", type=b"2"))
    result = intake.check(count_shards)
    assert result.problems[0].code == "archive_member_unsafe"
    assert intake.left() == []


TARS = {
    "archive_member_unsafe": tar_entry(b"a", type=b"2") + END,
    "archive_member_duplicate": tar_of({"a": b"1"})[:1024] + tar_of({"a": b"2"}),
    "archive_too_large": pax({b"comment": bytes(2**20)}) + tar_of({"a": b"1"}),
    "archive_truncated": tar_of({"a": b"1"})[:1024],
    "archive_format": b"no tar",
}


@pytest.mark.parametrize("code", TARS)
def test_tar_files_in_a_folder_are_held_to_what_shards_are(intake: Intake, tmp_path: Path, code: str) -> None:
    intake.upload(zip_of({**intake.files, "test/0.tar": tar_of({"a": b"1"}), "test/1.tar": TARS[code]}))
    (problem,) = intake.check().problems
    assert (problem.code, problem.message[:14]) == (code, "'test/1.tar': ")
    assert intake.left() == []

    (tmp_path / "source" / "test").mkdir()
    (tmp_path / "source" / "test" / "1.tar").write_bytes(TARS[code])
    roots = SourceRoots([tmp_path / "source"])
    registered = check_registered(roots.resolve(f"{tmp_path}/source"), roots, check_winoground)
    assert registered.problems == (problem,)


def test_tar_files_that_are_good_or_that_nobody_reads_are_kept(intake: Intake) -> None:
    intake.upload(zip_of({**intake.files, "0.tar": tar_of({"a": b"1"}), ".1.tar": b"no tar"}))
    assert intake.check().ready


def test_tar_files_behind_a_link_are_looked_at(intake: Intake, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "0.tar").write_bytes(TARS["archive_member_unsafe"])
    (tmp_path / "source" / "test").symlink_to(tmp_path / "other")
    roots = SourceRoots([tmp_path])
    found = check_registered(roots.resolve(f"{tmp_path}/source"), roots, check_winoground)
    assert [problem.code for problem in found.problems] == ["archive_member_unsafe"]


def test_unpacking_hashing_and_looking_at_shards_are_progress(intake: Intake) -> None:
    intake.upload(zip_of(intake.files))
    seen: list[tuple[int, int]] = []
    intake.check(progress=lambda *state: seen.append(state))
    counts = range(1, len(intake.files) + 1)
    assert seen == [
        *((count, 0) for count in counts),
        (4, 4),
        *((count, len(intake.files)) for count in counts),
    ]
    intake.upload_shards(*[tar_of({"a": b"1"})] * 2)
    seen.clear()
    intake.check(count_shards, progress=lambda *state: seen.append(state))
    assert seen == [(1, 2), (2, 2)]


def test_second_checker_of_one_upload_is_turned_away(intake: Intake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sds_clip.app.datasets.check.WAIT_S", 0.0)
    intake.upload(zip_of(intake.files))

    def record(_: CheckResult) -> None:
        with pytest.raises(DatasetBusy):
            intake.check()

    assert intake.check(record=record).ready


def test_check_that_is_stopped_leaves_the_upload(intake: Intake) -> None:
    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    intake.upload(zip_of(intake.files))
    with pytest.raises(KeyboardInterrupt):
        intake.check(progress=stop)
    assert intake.left() == ["uploads/ds_1/archive"]


def test_data_set_removed_before_its_check_is_not_there(intake: Intake) -> None:
    intake.upload(zip_of(intake.files))
    intake.folders.remove("ds_1")
    with pytest.raises(FileNotFoundError):
        intake.check()
    assert intake.left() == []


def test_registered_folder_and_shards_are_checked_where_they_are(intake: Intake, tmp_path: Path) -> None:
    roots = SourceRoots([tmp_path / "source"])
    content = roots.resolve(f"{tmp_path}/source")
    assert check_registered(content, roots, check_winoground).ready
    (tmp_path / "source" / "out").symlink_to("/etc")
    assert check_registered(content, roots, check_winoground).problems[0].code == "source_forbidden"
    (tmp_path / "source" / "0.tar").write_bytes(tar_of({"../a": b"1"}))
    shard = roots.resolve(f"{tmp_path}/source/0.tar")
    assert check_registered(shard, roots, count_shards).problems[0].code == "archive_member_unsafe"
