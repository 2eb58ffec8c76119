"""Data sets that wait for their check: accepted, rejected, registered, and by a process of its own."""

import io
import json
import shutil
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from app.datasets.folders import DatasetFolders
from app.datasets.intake import ARCHIVE, SHARDS
from app.datasets.shards import shard_name
from app.jobs.states import JobKind, JobStatus
from app.store import Store
from app.store.assets import Dataset, DatasetStatus
from app.store.records import Job, NewJob
from models.data.check import check_pairs
from models.data.open import open_pairs
from tests.worker.waiting import until
from worker.checker import Checker
from worker.config import WorkerConfig
from worker.data import content_of, pairs_place
from worker.dataset_checks import check
from worker.errors import JobFailed


def tar_of(folder: Path, top: str = "") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for file in sorted(folder.rglob("*")):
            if file.is_file():
                archive.add(file, arcname=top + file.relative_to(folder).as_posix())
    return buffer.getvalue()


def uploaded(
    store: Store, config: WorkerConfig, data: bytes, format: str = "pairs", **source: Any
) -> Dataset:
    dataset = store.datasets.add(name="a", format=format, source={"upload": "archive", **source}, folder=None)
    with DatasetFolders(config.datasets_dir).claim(dataset.id) as claim:
        (claim.folder / ARCHIVE).write_bytes(data)
        claim.keep_upload()
    return dataset


def checked(store: Store, config: WorkerConfig) -> Dataset:
    """The oldest data set that waits, once it is checked."""
    claimed = store.datasets.claim_check(60)
    assert claimed is not None
    check(config, store, claimed)
    return store.datasets.get(claimed.id)


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
    top: str, store: Store, config: WorkerConfig, pairs_folder: Path
) -> None:
    uploaded(store, config, tar_of(pairs_folder, top))
    found = checked(store, config)
    expected = check_pairs(open_pairs(pairs_folder / "captions.json"), workers=1).pairs
    assert (found.status, found.content_hash) == (DatasetStatus.READY, expected.content_hash)
    assert found.counts == {"samples": 24, "usable": 24, "captions": 24}
    place = pairs_place(content_of(store, config, found.id, param="x"), config.data_dir / "links")
    assert len(open_pairs(place.data, images=place.images)) == 24


def test_images_may_lie_in_a_folder_beside_the_captions(
    store: Store, config: WorkerConfig, pairs_folder: Path, tmp_path: Path
) -> None:
    shutil.copytree(pairs_folder, tmp_path / "a" / "images")
    (tmp_path / "a" / "images" / "captions.json").rename(tmp_path / "a" / "captions.json")
    uploaded(store, config, tar_of(tmp_path / "a"))
    assert checked(store, config).status is DatasetStatus.READY


def test_bad_pairs_are_rejected_with_each_problem_and_without_this_machine_s_paths(
    store: Store, config: WorkerConfig, pairs_folder: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "bad"
    shutil.copytree(pairs_folder, folder)
    (folder / "3.png").unlink()
    (folder / "5.png").write_bytes(b"no picture")
    archive = tar_of(folder)
    uploaded(store, config, archive)
    found = checked(store, config)
    assert found.status is DatasetStatus.REJECTED
    assert found.counts == {"samples": 24, "usable": 22, "captions": 22, "problems": 2}
    assert found.problems is not None
    assert [problem["code"] for problem in found.problems] == ["missing_file", "image_unreadable"]
    assert str(config.data_dir) not in json.dumps(list(found.problems))
    assert not list((config.datasets_dir / "sets").iterdir())
    uploaded(store, config, archive, max_bad_share=0.1)
    tolerated = checked(store, config)
    assert tolerated.status is DatasetStatus.READY
    assert tolerated.problems is not None
    assert len(tolerated.problems) == 2


def test_folder_with_two_files_of_captions_is_rejected(
    store: Store, config: WorkerConfig, pairs_folder: Path, tmp_path: Path
) -> None:
    shutil.copytree(pairs_folder, tmp_path / "two")
    shutil.copy(tmp_path / "two" / "captions.json", tmp_path / "two" / "more.json")
    uploaded(store, config, tar_of(tmp_path / "two"))
    found = checked(store, config)
    assert found.status is DatasetStatus.REJECTED
    assert found.problems is not None
    assert "captions.json, more.json" in found.problems[0]["message"]


def test_uploaded_shards_are_accepted_and_read_in_their_order(
    store: Store, config: WorkerConfig, picture: bytes
) -> None:
    dataset = store.datasets.add(name="a", format="pairs", source={"upload": "shards"}, folder=None)
    with DatasetFolders(config.datasets_dir).claim(dataset.id) as claim:
        (claim.folder / SHARDS).mkdir()
        for index, names in enumerate((["b", "a"], ["c"])):
            (claim.folder / SHARDS / shard_name(index)).write_bytes(shard(names, picture))
        claim.keep_upload()
    found = checked(store, config)
    assert (found.status, found.counts) == (
        DatasetStatus.READY,
        {"samples": 3, "usable": 3, "captions": 3},
    )


def test_registered_shards_of_several_folders_have_one_hash_at_the_check_and_in_training(
    store: Store, config: WorkerConfig, picture: bytes, tmp_path: Path
) -> None:
    root = tmp_path / "roots"
    for folder, names in (("one", ["a"]), ("two", ["b"])):
        (root / folder).mkdir(parents=True)
        (root / folder / "x.tar").write_bytes(shard(names, picture))
    (root / "one" / "not-named.tar").write_bytes(b"")
    open_to_us = replace(config, dataset_roots=(root,))
    pattern = f"{root}/{{one,two}}/x.tar"
    store.datasets.add(name="a", format="pairs", source={"path": pattern}, folder=None)
    found = checked(store, open_to_us)
    assert found.status is DatasetStatus.READY
    place = pairs_place(content_of(store, open_to_us, found.id, param="x"), tmp_path / "links")
    again = check_pairs(open_pairs(place.data, images=place.images), workers=1)
    assert again.pairs.content_hash == found.content_hash


def test_registered_path_that_is_no_longer_allowed_is_rejected(
    store: Store, config: WorkerConfig, pairs_folder: Path
) -> None:
    store.datasets.add(name="a", format="pairs", source={"path": str(pairs_folder)}, folder=None)
    found = checked(store, config)
    assert found.status is DatasetStatus.REJECTED
    assert found.problems is not None
    assert found.problems[0]["code"] == "source_forbidden"


def test_winoground_and_other_benchmarks_are_checked_by_their_own_readers(
    store: Store, config: WorkerConfig, winoground_folder: Path, pairs_folder: Path
) -> None:
    uploaded(store, config, tar_of(winoground_folder), "winoground")
    found = checked(store, config)
    assert (found.status, found.counts) == (DatasetStatus.READY, {"items": 4, "images": 8})
    uploaded(store, config, tar_of(pairs_folder), "retrieval")
    assert checked(store, config).counts == {"items": 24, "images": 24}
    uploaded(store, config, tar_of(pairs_folder), "winoground")
    uploaded(store, config, tar_of(winoground_folder), "zero-shot")
    uploaded(store, config, tar_of(pairs_folder), "chess")
    uploaded(store, config, b"no archive", "pairs")
    assert [checked(store, config).status for _ in range(4)] == [DatasetStatus.REJECTED] * 4


def test_upload_that_is_gone_is_rejected_and_a_job_that_waited_for_it_fails(
    store: Store, config: WorkerConfig
) -> None:
    dataset = store.datasets.add(name="a", format="pairs", source={}, folder=None)
    job, _ = store.jobs.submit(NewJob(JobKind.FINETUNE, {}, {}, datasets=(dataset.id,)))
    assert checked(store, config).problems == [
        {"code": "upload_missing", "message": "The upload is gone; send it again."}
    ]
    failed = store.jobs.get(job.id)
    assert failed.status is JobStatus.FAILED
    with pytest.raises(JobFailed, match="is rejected"):
        content_of(store, config, dataset.id, param="data")


def test_checker_s_process_checks_all_that_wait_and_queues_their_jobs(
    store: Store, config: WorkerConfig, pairs_folder: Path, submit: Callable[..., Job]
) -> None:
    good = uploaded(store, config, tar_of(pairs_folder))
    bad = uploaded(store, config, b"no archive")
    job = submit({}, datasets=(good.id,))
    assert job.status is JobStatus.VALIDATING
    checker = Checker(config, store)
    checker.start()
    until(lambda: store.datasets.get(bad.id).status is DatasetStatus.REJECTED)
    checker.stop()
    checker.join()
    assert store.datasets.get(good.id).status is DatasetStatus.READY
    assert store.jobs.get(job.id).status is JobStatus.QUEUED
