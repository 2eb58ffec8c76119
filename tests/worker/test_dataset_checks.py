"""Data sets that wait for their check: accepted, rejected, registered, and by a process of its own."""

import errno
import io
import json
import resource
import shutil
import sys
import tarfile
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from sds_clip.app.datasets import check as of_checks
from sds_clip.app.datasets.archive_limits import ENTRY_BYTES, ArchiveLimits
from sds_clip.app.datasets.check import CheckResult
from sds_clip.app.datasets.folders import ARCHIVE, SHARDS, Content, DatasetFolders, shard_name
from sds_clip.app.datasets.unpack import Progress
from sds_clip.app.errors import FilesUnreadable, SourceForbidden
from sds_clip.app.schemas.datasets import FORMATS
from sds_clip.app.settings import MAX_ATTEMPTS
from sds_clip.app.store import verdicts
from sds_clip.app.store.records import Dataset, DatasetStatus, Job
from sds_clip.app.store.states import JobKind, JobStatus
from sds_clip.models.data.check import check_pairs
from sds_clip.models.data.open import open_pairs
from sds_clip.models.errors import DataError
from sds_clip.worker import check_job, job_process
from sds_clip.worker.context import JobContext
from sds_clip.worker.data import PairsPlace, content_of, pairs_place
from sds_clip.worker.errors import JobFailed, failure_of
from sds_clip.worker.finetune_job import finetune
from tests.app.datasets.archives import tar_of as tar_of_files
from tests.app.datasets.archives import zip_of
from tests.checks import claimed_check
from tests.databases import on_both
from tests.disks import small_disk
from tests.pictures import save_pictures
from tests.worker import in_process
from tests.worker.waiting import Running, end, fit, until
from tests.worker.work import Asked, Work, result_of


def tar_of(folder: Path, top: str = "") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for file in sorted(folder.rglob("*")):
            if file.is_file():
                archive.add(file, arcname=top + file.relative_to(folder).as_posix())
    return buffer.getvalue()


def unpacked_bytes(folder: Path) -> int:
    """What a folder takes of a quota: its content, and something for each file and folder."""
    found = list(folder.rglob("*"))
    return sum(file.stat().st_size for file in found if file.is_file()) + 4096 * len(found)


def uploaded(work: Work, data: bytes, format: str = "pairs", *, owner: str = "", **source: Any) -> Dataset:
    source = {"upload": "archive", **source}
    dataset = work.store.datasets.add(format=format, source=source, owner=owner, size_bytes=len(data))
    with DatasetFolders(work.config.datasets_dir).claim(dataset.id) as claim:
        (claim.folder / ARCHIVE).write_bytes(data)
        claim.keep_upload()
    return dataset


def registered(work: Work, path: object) -> None:
    work.store.datasets.add(format="pairs", source={"path": str(path)})


def checked(work: Work, **changes: Any) -> Dataset:
    """The oldest data set that waits, once it is checked, under a configuration with these changes."""
    return in_process.checked(replace(work.config, **changes), work.store)


def accepted(work: Work, **changes: Any) -> Dataset:
    found = checked(work, **changes)
    assert (found.status, found.problems) == (DatasetStatus.READY, [])
    return found


def rejected(work: Work, **changes: Any) -> list[dict[str, Any]]:
    """The problems for which the oldest that waits is rejected; none tells where this machine keeps it."""
    found = checked(work, **changes)
    assert found.status is DatasetStatus.REJECTED
    assert str(work.config.data_dir) not in json.dumps(found.problems)
    return list(found.problems or ())


def place_of(work: Work, dataset: Dataset, **changes: Any) -> PairsPlace:
    """Where training reads it."""
    config = replace(work.config, **changes)
    return pairs_place(content_of(work.store, config, dataset.id, param="x"), config.data_dir / "links")


def shard(names: list[str], picture: bytes) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name in names:
            for suffix, data in ((".png", picture), (".txt", f"a {name} left of a star".encode())):
                member = tarfile.TarInfo(name + suffix)
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


@pytest.fixture(scope="session")
def picture(pairs_folder: Path) -> bytes:
    return (pairs_folder / "0.png").read_bytes()


@pytest.mark.parametrize("top", ["", "coco/"])
def test_archive_of_a_coco_set_is_accepted_with_the_hash_that_training_sees(
    work: Work, top: str, pairs_folder: Path
) -> None:
    uploaded(work, tar_of(pairs_folder, top))
    found = accepted(work)
    expected = check_pairs(open_pairs(pairs_folder / "captions.json"), workers=1).pairs
    assert found.content_hash == expected.content_hash
    assert found.counts == {"samples": 24, "usable": 24, "captions": 24}
    for name in ("caption_words", "image_longer_side"):
        assert sum((found.statistics or {})[name]["counts"]) == 24
    place = place_of(work, found)
    assert len(open_pairs(place.data, images=place.images)) == 24


def test_images_may_lie_in_a_folder_beside_the_captions(
    work: Work, pairs_folder: Path, tmp_path: Path
) -> None:
    shutil.copytree(pairs_folder, tmp_path / "a" / "images")
    (tmp_path / "a" / "images" / "captions.json").rename(tmp_path / "a" / "captions.json")
    uploaded(work, tar_of(tmp_path / "a"))
    accepted(work)


def test_bad_pairs_are_rejected_with_each_problem_and_without_this_machine_s_paths(
    work: Work, pairs_folder: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "bad"
    shutil.copytree(pairs_folder, folder)
    (folder / "3.png").unlink()
    (folder / "5.png").write_bytes(b"no picture")
    archive = tar_of(folder)
    uploaded(work, archive)
    found = checked(work)
    assert found.status is DatasetStatus.REJECTED
    assert found.counts == {"samples": 24, "usable": 22, "captions": 22, "problems": 2}
    assert [problem["code"] for problem in found.problems or ()] == ["missing_file", "image_unreadable"]
    assert str(work.config.data_dir) not in json.dumps(found.problems)
    assert not list((work.config.datasets_dir / "sets").iterdir())
    uploaded(work, archive, max_bad_share=0.1)
    tolerated = checked(work)
    assert (tolerated.status, len(tolerated.problems or ())) == (DatasetStatus.READY, 2)


SAVED = Path(__file__).parents[1] / "models/saved_sets"


@pytest.mark.parametrize("name", ["shards", "one_split", "parquet", "photos"])
def test_archives_of_hugging_face_s_layouts_are_accepted_with_the_hash_that_training_sees(
    work: Work, name: str
) -> None:
    pytest.importorskip("pyarrow")
    uploaded(work, tar_of(SAVED / name, "top/"))
    found = accepted(work)
    assert found.content_hash == check_pairs(open_pairs(SAVED / name), workers=1).pairs.content_hash
    place = place_of(work, found)
    assert len(open_pairs(place.data, images=place.images, confined=True)) == len(open_pairs(SAVED / name))


def test_archive_with_a_metadata_csv_is_accepted_and_its_faults_are_told_by_line(
    work: Work, tmp_path: Path
) -> None:
    save_pictures(tmp_path, ["a.png", "b.png"])
    (tmp_path / "metadata.csv").write_text("file_name,text\na.png,a cat\nb.png,a dog\n")
    for format in ("pairs", "retrieval"):
        uploaded(work, tar_of(tmp_path, "top/"), format)
        assert accepted(work).counts["usable"] == 2
    (tmp_path / "metadata.csv").write_text("file_name,text\na.png,a cat\nc.png,a dog\n")
    uploaded(work, tar_of(tmp_path, "top/"))
    assert "c.png (line 3)" in rejected(work)[0]["message"]


@pytest.mark.parametrize(
    ("name", "format", "items"),
    [
        ("winoground", "winoground", 3),
        ("winoground_parquet", "winoground", 3),
        ("shards", "zero-shot", 5),
        ("shards", "retrieval", 5),
        ("photos", "retrieval", 2),
    ],
)
def test_archives_of_hugging_face_s_layouts_are_benchmarks_too(
    work: Work, name: str, format: str, items: int
) -> None:
    pytest.importorskip("pyarrow")
    uploaded(work, tar_of(SAVED / name), format)
    assert accepted(work).counts["usable"] == items


def test_several_splits_and_names_that_lead_elsewhere_are_rejected_without_this_machine_s_paths(
    work: Work, tmp_path: Path
) -> None:
    shutil.copytree(SAVED / "photos", tmp_path / "photos")
    (tmp_path / "photos/metadata.jsonl").write_text('{"file_name": "../0.png", "text": "a"}')
    shutil.copytree(SAVED / "shards", tmp_path / "shards")
    state = {"_data_files": [{"filename": "../../secret.arrow"}]}
    (tmp_path / "shards/state.json").write_text(json.dumps(state))
    for folder, reason in (
        (SAVED / "splits", "the data set holds the splits train, test"),
        (tmp_path / "photos", "the image '../0.png' is not inside the folder"),
        (tmp_path / "shards", "'../../secret.arrow' is not a name in this folder"),
    ):
        uploaded(work, tar_of(folder))
        assert reason in rejected(work)[0]["message"]


@pytest.fixture
def table(pairs_folder: Path, tmp_path: Path) -> Callable[[str], Path]:
    """Writes a data set of a table, of whose images the second has the name that is asked for."""

    def write(name: str) -> Path:
        folder = tmp_path / "roots" / "table"
        (folder / "images").mkdir(parents=True, exist_ok=True)
        shutil.copy(pairs_folder / "0.png", folder / "images")
        shutil.copy(pairs_folder / "1.png", folder / "images")
        (folder / "captions.csv").write_text(f"filepath,title\n0.png,a star\n{name},a moon\n")
        return folder

    return write


@pytest.mark.parametrize("there", [True, False])
@pytest.mark.parametrize("kind", ["absolute", "relative"])
def test_table_that_names_a_file_elsewhere_is_rejected_whether_that_is_there_or_not(
    work: Work, tmp_path: Path, table: Callable[[str], Path], kind: str, there: bool
) -> None:
    uploaded(work, tar_of(table("1.png")))
    accepted(work)

    name = f"{tmp_path}/secret.png" if kind == "absolute" else "../../../../../../secret.png"
    folder = table(name)
    if there:
        shutil.copy(folder / "images" / "0.png", tmp_path / "secret.png")
        shutil.copy(folder / "images" / "0.png", work.config.data_dir / "secret.png")
    uploaded(work, tar_of(folder))
    registered(work, folder)
    for _ in range(2):
        (problem,) = rejected(work, dataset_roots=(tmp_path / "roots",))
        assert problem["code"] == "bad_data"
        assert problem["message"].startswith(f"captions.csv: the image '{name}' is not inside")


def test_job_reads_no_file_elsewhere_even_of_a_data_set_that_is_ready(
    work: Work, table: Callable[[str], Path], pairs_folder: Path, tuning: Asked
) -> None:
    dataset = work.add_ready(table(str(pairs_folder / "1.png")), "pairs")
    work.submit({**tuning, "training_data": dataset})
    with work.claimed() as context, pytest.raises(DataError, match="is not inside the folder"):
        finetune(context)


def test_registered_folder_is_not_read_once_a_link_leads_out_of_it(
    work: Work, tmp_path: Path, table: Callable[[str], Path], pairs_folder: Path
) -> None:
    folder, roots = table("1.png"), (tmp_path / "roots",)
    registered(work, folder)
    found = accepted(work, dataset_roots=roots)
    place_of(work, found, dataset_roots=roots)
    (folder / "images" / "1.png").unlink()
    (folder / "images" / "1.png").symlink_to(pairs_folder / "1.png")
    with pytest.raises(SourceForbidden):
        place_of(work, found, dataset_roots=roots)
    registered(work, folder)
    rejected(work, dataset_roots=roots)


def test_folder_with_two_files_of_captions_is_rejected(
    work: Work, pairs_folder: Path, tmp_path: Path
) -> None:
    shutil.copytree(pairs_folder, tmp_path / "two")
    shutil.copy(tmp_path / "two" / "captions.json", tmp_path / "two" / "more.json")
    uploaded(work, tar_of(tmp_path / "two"))
    assert "captions.json, more.json" in rejected(work)[0]["message"]


def test_uploaded_shards_are_accepted_and_read_in_their_order(work: Work, picture: bytes) -> None:
    dataset = work.store.datasets.add(format="pairs", source={"upload": "shards"})
    with DatasetFolders(work.config.datasets_dir).claim(dataset.id) as claim:
        (claim.folder / SHARDS).mkdir()
        for index, names in enumerate((["b", "a"], ["c"])):
            (claim.folder / SHARDS / shard_name(index)).write_bytes(shard(names, picture))
        claim.keep_upload()
    assert accepted(work).counts == {"samples": 3, "usable": 3, "captions": 3}


def test_registered_shards_of_several_folders_have_one_hash_at_the_check_and_in_training(
    work: Work, picture: bytes, tmp_path: Path
) -> None:
    root = tmp_path / "roots"
    for folder, names in (("one", ["a"]), ("two", ["b"])):
        (root / folder).mkdir(parents=True)
        (root / folder / "x.tar").write_bytes(shard(names, picture))
    (root / "one" / "not-named.tar").write_bytes(b"")
    registered(work, f"{root}/{{one,two}}/x.tar")
    found = accepted(work, dataset_roots=(root,))
    place = place_of(work, found, dataset_roots=(root,))
    again = check_pairs(open_pairs(place.data, images=place.images), workers=1)
    assert again.pairs.content_hash == found.content_hash


def test_registered_path_that_is_no_longer_allowed_is_rejected(work: Work, pairs_folder: Path) -> None:
    registered(work, pairs_folder)
    assert rejected(work)[0]["code"] == "source_forbidden"


def test_winoground_and_other_benchmarks_are_checked_by_their_own_readers(
    work: Work, winoground_folder: Path, pairs_folder: Path
) -> None:
    uploaded(work, tar_of(winoground_folder), "winoground")
    assert accepted(work).counts == {"items": 4, "usable": 4, "images": 8}
    uploaded(work, tar_of(pairs_folder), "retrieval")
    assert accepted(work).counts == {"items": 24, "usable": 24, "images": 24}
    uploaded(work, tar_of(pairs_folder), "winoground")
    uploaded(work, tar_of(winoground_folder), "zero-shot")
    uploaded(work, b"no archive", "pairs")
    for _ in range(3):
        rejected(work)


def test_set_of_winoground_that_was_sent_as_pairs_is_told_its_format(
    work: Work, winoground_folder: Path
) -> None:
    uploaded(work, tar_of(winoground_folder))
    (problem,) = rejected(work)
    assert "add it again with the format winoground" in problem["message"]


def test_benchmark_s_bad_items_are_listed_and_left_out_where_that_is_allowed(
    work: Work, pairs_folder: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "bad"
    shutil.copytree(pairs_folder, folder)
    (folder / "3.png").unlink()
    (folder / "5.png").write_bytes(b"no picture")
    for share, status in ((0.0, DatasetStatus.REJECTED), (0.1, DatasetStatus.READY)):
        uploaded(work, tar_of(folder), "retrieval", max_bad_share=share)
        found = checked(work)
        problems = found.problems or ()
        assert (found.status, len(problems)) == (status, 2)
        assert "3.png" in problems[0]["message"]
        assert str(work.config.data_dir) not in json.dumps(problems)
    assert found.counts == {"items": 24, "usable": 22, "images": 22}
    content = json.loads((folder / "captions.json").read_text())
    content["images"] = [image for image in content["images"] if image["id"] not in (3, 5)]
    content["annotations"] = [line for line in content["annotations"] if line["image_id"] not in (3, 5)]
    (folder / "captions.json").write_text(json.dumps(content))
    uploaded(work, tar_of(folder), "retrieval")
    assert accepted(work).content_hash == found.content_hash


def test_fine_tuned_model_is_measured_on_what_the_check_has_left(
    work: Work, winoground_folder: Path, tmp_path: Path, tuning: Asked
) -> None:
    shutil.copytree(winoground_folder, tmp_path / "bad")
    (tmp_path / "bad" / "images" / "ex_2_img_1.png").unlink()
    uploaded(work, tar_of(tmp_path / "bad"), "winoground", max_bad_share=0.25)
    data = checked(work)
    job = work.finetuned({**tuning, "evaluate": [{"benchmark": "winoground", "data": data.id}]})
    (measured,) = result_of(job)["evaluations"].values()
    assert (measured["provenance"]["items"], measured["provenance"]["items_used"]) == (4, 3)


@on_both
def test_upload_that_is_gone_is_rejected_and_a_job_that_waited_for_it_fails(work: Work) -> None:
    dataset = work.store.datasets.add(format="pairs", source={})
    job = work.submit({}, datasets=(dataset.id,))
    assert [problem["code"] for problem in rejected(work)] == ["upload_missing"]
    assert work.get(job).status is JobStatus.FAILED
    with pytest.raises(JobFailed, match="is rejected"):
        place_of(work, dataset)


def enlist(work: Work) -> None:
    """Submit the checks of all that wait."""
    work.store.datasets.enlist_checks(FORMATS)


def held_back(work: Work, dataset: Dataset) -> AbstractContextManager[object]:
    """Lets the check wait, since another process has the files."""
    return DatasetFolders(work.config.datasets_dir).claim(dataset.id)


def check_of(work: Work, dataset: Dataset) -> Job:
    """The job that checks it."""
    return work.store.jobs.get(verdicts.check_of(dataset.id))


@pytest.mark.long
def test_slot_checks_all_that_wait_and_queues_their_jobs(work: Work, pairs_folder: Path) -> None:
    good = uploaded(work, tar_of(pairs_folder))
    bad = uploaded(work, b"no archive")
    job = work.submit({}, datasets=(good.id,))
    assert job.status is JobStatus.VALIDATING
    enlist(work)
    with Running(work.config.of_checks, work.store):
        until(lambda: work.store.datasets.get(bad.id).status is DatasetStatus.REJECTED)
        until(lambda: work.store.datasets.get(good.id).status is DatasetStatus.READY)
    assert work.get(job).status is JobStatus.QUEUED


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells the limits of another process")
def test_check_that_its_worker_stops_is_given_back_and_its_process_has_limits(
    work: Work, pairs_folder: Path
) -> None:
    dataset = uploaded(work, tar_of(pairs_folder))
    enlist(work)
    with held_back(work, dataset), Running(work.config.of_checks, work.store):
        pid = work.process().pid
        until(lambda: check_of(work, dataset).stage == "checking")
        for kind in (resource.RLIMIT_AS, resource.RLIMIT_FSIZE):
            assert resource.prlimit(pid, kind)[0] != resource.RLIM_INFINITY
    given_back = check_of(work, dataset)
    assert (given_back.status, given_back.attempt) == (JobStatus.QUEUED, 0)
    accepted(work)


@pytest.mark.long
def test_data_set_whose_check_dies_each_time_is_rejected(work: Work, pairs_folder: Path) -> None:
    dataset = uploaded(work, tar_of(pairs_folder))
    enlist(work)
    with held_back(work, dataset), Running(work.config.of_checks, work.store):
        for attempt in range(1, MAX_ATTEMPTS + 1):
            end(work.process(attempt))
            until(lambda: check_of(work, dataset).fence > attempt or check_of(work, dataset).error)  # noqa: B023
        until(lambda: work.store.datasets.get(dataset.id).status is DatasetStatus.REJECTED)
    (problem,) = work.store.datasets.get(dataset.id).problems or ()
    assert problem["code"] == "check_died"


def test_check_on_a_full_disk_pauses_and_ends_once_it_is_resumed(work: Work, pairs_folder: Path) -> None:
    with small_disk(work.config.datasets_dir, "4m") as disk:
        dataset = uploaded(work, tar_of(pairs_folder))
        enlist(work)
        disk.fill()
        with Running(work.config.of_checks, work.store):
            until(lambda: check_of(work, dataset).status is JobStatus.PAUSED)
            reason = check_of(work, dataset).pause_reason
            assert reason is not None
            assert reason.code == "storage_full"
            assert work.store.datasets.get(dataset.id).status is DatasetStatus.VALIDATING
            disk.free()
            work.store.jobs.request_resume(verdicts.check_of(dataset.id))
            until(lambda: work.store.datasets.get(dataset.id).status is DatasetStatus.READY)


def test_good_data_set_whose_files_another_process_holds_on_to_is_not_rejected(
    work: Work, pairs_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(of_checks, "WAIT_S", 0.1)
    dataset = uploaded(work, tar_of(pairs_folder))
    enlist(work)

    def attempt() -> None:
        until(lambda: work.store.leases.next_due(JobKind.CHECK))
        with in_process.claimed(replace(work.config, threads=0), work.store, JobKind.CHECK) as context:
            run = partial(check_job.check, dataset=dataset, checker=check_job.checker_of(dataset))
            job_process._attempt(context, lambda kind: run)

    with held_back(work, dataset):
        for _ in range(MAX_ATTEMPTS):
            assert check_of(work, dataset).status is JobStatus.QUEUED
            attempt()
    assert work.pause_reason(check_of(work, dataset)).code == "dataset_busy"
    work.store.jobs.request_resume(verdicts.check_of(dataset.id))
    attempt()
    assert work.store.datasets.get(dataset.id).status is DatasetStatus.READY


def test_files_that_cannot_be_read_are_an_error_of_their_own_that_another_attempt_may_mend(
    work: Work, pairs_folder: Path
) -> None:
    def unreadable(content: Content, *, progress: Progress | None = None) -> CheckResult:
        raise PermissionError(errno.EACCES, "Permission denied")

    dataset = uploaded(work, tar_of(pairs_folder))
    enlist(work)
    with in_process.claimed(work.config, work.store, JobKind.CHECK) as context:
        with pytest.raises(FilesUnreadable, match="Permission denied") as caught:
            check_job.check(context, dataset, unreadable)
        failure = failure_of(caught.value)
    assert (failure.error.code, failure.again) == ("files_unreadable", True)


def test_check_ends_when_its_data_set_is_deleted(work: Work, pairs_folder: Path) -> None:
    dataset = uploaded(work, tar_of(pairs_folder))
    enlist(work)
    with held_back(work, dataset), Running(work.config.of_checks, work.store):
        until(lambda: check_of(work, dataset).stage == "checking")
        work.store.datasets.delete(dataset.id)
        until(lambda: check_of(work, dataset).status is JobStatus.CANCELLED)


def test_data_set_that_a_worker_of_the_release_before_has_checked_keeps_its_verdict(
    work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(check_job, "limit_resources", lambda: None)  # it holds for a whole process
    work.config.data_dir.mkdir(parents=True, exist_ok=True)
    fit(work.config, work.store).look()  # the database names no files yet
    dataset = work.store.datasets.add(format="pairs", source={})
    enlist(work)
    with work.store.database.writing() as connection:
        connection.execute(text("UPDATE datasets SET status = 'ready', content_hash = 'abc'"))
    with in_process.claimed(work.config, work.store, JobKind.CHECK) as context:
        check_job.check_dataset(context)
    assert check_of(work, dataset).status is JobStatus.SUCCEEDED
    kept = work.store.datasets.get(dataset.id)
    assert (kept.status, kept.content_hash) == (DatasetStatus.READY, "abc")


@pytest.mark.parametrize(("owner", "status"), [("alice", "rejected"), ("", "ready")])
def test_archive_that_unpacks_to_more_than_its_key_may_store_is_rejected(
    work: Work, pairs_folder: Path, owner: str, status: str
) -> None:
    size = unpacked_bytes(pairs_folder)
    work.store.datasets.add(format="pairs", source={}, owner=owner, size_bytes=1000)
    claimed_check(work.store)
    uploaded(work, tar_of(pairs_folder), owner=owner)

    found = checked(work, max_stored_bytes_per_key=size + 999)

    assert found.status == status


def test_archive_that_no_longer_fits_when_its_check_ends_is_rejected_and_removed(
    work: Work, pairs_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another data set of its key has become larger while it was unpacked."""
    limits_of = check_job._limits

    def overtaken(context: JobContext, dataset: Dataset) -> ArchiveLimits:
        limits = limits_of(context, dataset)
        work.store.datasets.add(format="pairs", source={}, owner="alice", size_bytes=1000)
        return limits

    monkeypatch.setattr(check_job, "_limits", overtaken)
    dataset = uploaded(work, tar_of(pairs_folder), owner="alice")

    (problem,) = rejected(work, max_stored_bytes_per_key=unpacked_bytes(pairs_folder) + 999)

    assert problem["code"] == "key_limit"
    assert "max_stored_bytes_per_key" in problem["message"]
    assert not DatasetFolders(work.config.datasets_dir).content(dataset.id).exists()
    assert work.store.datasets.stored_bytes("alice") == 1000


def test_data_set_counts_with_the_size_of_its_files(work: Work, pairs_folder: Path) -> None:
    size = unpacked_bytes(pairs_folder)
    uploaded(work, tar_of(pairs_folder), owner="alice")

    found = checked(work, max_stored_bytes_per_key=size)

    assert (found.status, found.size_bytes) == ("ready", size)


def test_empty_files_of_an_archive_count_too(work: Work, pairs_folder: Path, tmp_path: Path) -> None:
    """Of three archives that are almost nothing but empty files, two are what their key may store."""
    folder = shutil.copytree(pairs_folder, tmp_path / "padded")
    for number in range(1000):
        (folder / f"{number:04d}.bin").touch()
    for _ in range(3):
        uploaded(work, tar_of(folder), owner="alice")

    found = [checked(work, max_stored_bytes_per_key=3 * unpacked_bytes(folder) - 1) for _ in range(3)]

    assert [each.status for each in found] == ["ready", "ready", "rejected"]
    assert work.store.datasets.stored_bytes("alice") == 2 * unpacked_bytes(folder) > 2 * 1000 * ENTRY_BYTES


@pytest.mark.parametrize(("pack", "most"), [(partial(tar_of_files, mode="w:gz"), 1000), (zip_of, 0)])
def test_archive_of_empty_files_is_rejected_before_more_of_them_are_written_than_its_key_may_store(
    work: Work, monkeypatch: pytest.MonkeyPatch, pack: Callable[[dict[str, bytes]], bytes], most: int
) -> None:
    """A zip states its entries, so nothing is written."""
    data = pack({f"{number:05d}": b"" for number in range(100_000)})
    uploaded(work, data, owner="alice")
    limit, written = 1000 * ENTRY_BYTES, [0]

    monkeypatch.setattr(JobContext, "stage", lambda context, stage, done=0, total=None: written.append(done))

    found = checked(work, max_stored_bytes_per_key=limit)

    assert max(written) == most
    (problem,) = found.problems or ()
    assert problem["code"] == "archive_too_large"
    assert (
        f"more than {limit} bytes, which is the limit, with 4096 for each file and folder"
        in problem["message"]
    )
