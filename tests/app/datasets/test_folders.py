"""Data sets on the disk: claimed by one at a time, renamed into place, swept after a crash."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from sds_clip.app.datasets.folders import DatasetFolders
from sds_clip.app.errors import DatasetBusy


def layout(folders: DatasetFolders) -> list[str]:
    root = folders.work.parent
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())


def nobody(_: str) -> bool:
    return False


def everybody(_: str) -> bool:
    return True


def store_upload(folders: DatasetFolders, dataset_id: str) -> None:
    with folders.claim(dataset_id) as claim:
        (claim.folder / "archive").write_text("bytes")
        claim.keep_upload()


def store_set(folders: DatasetFolders, dataset_id: str, content: str = "item") -> None:
    with folders.claim(dataset_id) as claim:
        (claim.folder / "item").write_text(content)
        claim.publish()


def test_upload_and_set_stand_in_their_places_and_can_be_removed(tmp_path: Path) -> None:
    folders = DatasetFolders(tmp_path / "new" / "datasets")
    store_upload(folders, "ds_1")
    store_set(folders, "ds_1")
    store_set(folders, "ds_2")
    assert layout(folders) == ["sets/ds_1/item", "sets/ds_2/item", "uploads/ds_1/archive"]
    folders.remove("ds_1")
    folders.remove("ds_3")
    assert layout(folders) == ["sets/ds_2/item"]
    assert list(folders.work.iterdir()) == []


def test_set_is_replaced_as_a_whole(tmp_path: Path) -> None:
    folders = DatasetFolders(tmp_path)
    store_set(folders, "ds_1", "old")
    (folders.content("ds_1") / "more").touch()
    store_set(folders, "ds_1", "new")
    assert layout(folders) == ["sets/ds_1/item"]
    assert (folders.content("ds_1") / "item").read_text() == "new"


def test_work_that_fails_leaves_nothing(tmp_path: Path) -> None:
    folders = DatasetFolders(tmp_path)

    def fail() -> None:
        with folders.claim("ds_1") as claim:
            (claim.folder / "half").touch()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert list(folders.work.iterdir()) == []
    store_set(folders, "ds_1")


@pytest.mark.parametrize("bad", ["", "..", ".", "a/b", "../a", "a\0", ".hidden", "a" * 65, "-a", "é"])
def test_id_never_becomes_another_path(tmp_path: Path, bad: str) -> None:
    folders = DatasetFolders(tmp_path)
    for use in (folders.upload, folders.content, folders.remove):
        with pytest.raises(ValueError, match="id"):
            use(bad)


def test_second_claim_is_refused_until_the_first_ends(tmp_path: Path) -> None:
    folders, others = DatasetFolders(tmp_path), DatasetFolders(tmp_path)
    with folders.claim("ds_1"), others.claim("ds_2"):
        with pytest.raises(DatasetBusy) as caught, others.claim("ds_1"):
            pass
        with pytest.raises(DatasetBusy):
            others.remove("ds_1")
    assert (caught.value.status, caught.value.retryable) == (409, True)
    with others.claim("ds_1"):
        pass


def test_claim_that_waits_gets_what_another_process_has_held_when_that_dies(tmp_path: Path) -> None:
    folders = DatasetFolders(tmp_path)
    with another_process(tmp_path, "writing") as process, ThreadPoolExecutor() as threads:

        def claim() -> list[Path]:
            with folders.claim("ds_1", wait_s=600.0) as claimed:
                return list(claimed.folder.iterdir())

        waiting = threads.submit(claim)
        assert not waiting.done()
        os.kill(process.pid, signal.SIGKILL)
        assert waiting.result() == []


def test_many_threads_are_never_two_at_work(tmp_path: Path) -> None:
    folders = DatasetFolders(tmp_path)
    inside = entered = 0
    together: list[int] = []

    def work() -> None:
        nonlocal inside, entered
        for _ in range(200):
            try:
                with folders.claim("ds_1"):
                    inside += 1
                    together.append(inside)
                    entered += 1
                    inside -= 1
            except DatasetBusy:
                pass

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert entered > 0
    assert set(together) == {1}
    assert list(folders.work.iterdir()) == []


WORKER = """
import sys, time
from pathlib import Path
from sds_clip.app.datasets.folders import DatasetFolders

folders = DatasetFolders(Path(sys.argv[1]))
with folders.claim("ds_1") as claim:
    (claim.folder / "archive").write_text("bytes")
    if sys.argv[2] == "kept":
        claim.keep_upload()
    if sys.argv[2] == "published":
        claim.publish()
    print("at work", flush=True)
    time.sleep(60)
"""


@contextmanager
def another_process(root: Path, stage: str) -> Iterator["subprocess.Popen[str]"]:
    command = [sys.executable, "-c", WORKER, str(root), stage]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "at work\n"
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize("stage", ["writing", "kept", "published"])
def test_sweep_spares_another_process_at_work_and_removes_what_its_crash_leaves(
    tmp_path: Path, stage: str
) -> None:
    folders = DatasetFolders(tmp_path)
    store_set(folders, "ds_2")
    with another_process(tmp_path, stage) as process:
        before = layout(folders)
        with pytest.raises(DatasetBusy), folders.claim("ds_1"):
            pass
        # Its record is not committed yet: nobody seems to want what it has written.
        assert folders.sweep(wants_upload=nobody, wants_set=lambda name: name == "ds_2") == []
        assert layout(folders) == before
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        assert layout(folders) == before
        assert folders.sweep(wants_upload=nobody, wants_set=lambda name: name == "ds_2") == ["ds_1"]
    assert layout(folders) == ["sets/ds_2/item"]
    assert list(folders.work.iterdir()) == []
    assert folders.sweep(wants_upload=nobody, wants_set=everybody) == []


def test_sweep_keeps_what_a_record_wants(tmp_path: Path) -> None:
    folders = DatasetFolders(tmp_path)
    for name in ("ds_1", "ds_2"):
        store_upload(folders, name)
        store_set(folders, name)
    assert folders.sweep(wants_upload=everybody, wants_set=everybody) == []
    assert folders.sweep(wants_upload=lambda name: name == "ds_1", wants_set=lambda name: name == "ds_2") == [
        "ds_1",
        "ds_2",
    ]
    assert layout(folders) == ["sets/ds_2/item", "uploads/ds_1/archive"]


def test_record_that_is_committed_while_the_sweep_looks_keeps_its_folder(tmp_path: Path) -> None:
    """The sweep asks again once it holds the lock: by then the record of an earlier holder is there."""
    folders = DatasetFolders(tmp_path)
    store_upload(folders, "ds_1")
    answers = iter([False, True])
    assert folders.sweep(wants_upload=lambda _: next(answers), wants_set=nobody) == []
    assert layout(folders) == ["uploads/ds_1/archive"]


def test_names_that_are_no_data_sets_are_left_alone(tmp_path: Path) -> None:
    folders = DatasetFolders(tmp_path)
    (folders.sets / "lost+found").mkdir()
    (folders.uploads / ".nfs0001").touch()
    assert folders.sweep(wants_upload=nobody, wants_set=nobody) == []
    assert (folders.sets / "lost+found").exists()
    assert (folders.uploads / ".nfs0001").exists()
