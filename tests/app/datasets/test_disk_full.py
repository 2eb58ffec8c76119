"""A disk that is really full: a small file system, or the size that the system allows this process's files."""

import asyncio
import resource
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from sds_clip.app.datasets.check import check_upload
from sds_clip.app.datasets.folders import ARCHIVE, DatasetFolders
from sds_clip.app.datasets.receive import receive
from sds_clip.app.datasets.unpack import unpack
from sds_clip.app.errors import StorageFull
from sds_clip.worker.benchmarks import check_benchmark
from tests.app.datasets.archives import tar_of, zip_of
from tests.disks import small_disk

check_winoground = partial(check_benchmark, "winoground", 0.0)

NOISE = bytes(range(256)) * 4096  # 1 MiB


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 2 MiB and 40 inodes."""
    with small_disk(tmp_path / "disk", "2m", 40) as disk:
        yield disk.path


async def stream(count: int) -> AsyncIterator[bytes]:
    for _ in range(count):
        yield NOISE


def test_upload_that_fills_the_disk_leaves_nothing(disk: Path) -> None:
    with pytest.raises(StorageFull) as caught:
        asyncio.run(receive(stream(4), disk / "upload", len, max_bytes=2**30))
    assert (caught.value.status, caught.value.code, caught.value.retryable) == (507, "storage_full", True)
    assert list(disk.iterdir()) == []
    assert asyncio.run(receive(stream(1), disk / "upload", len, max_bytes=2**30)).size_bytes == 2**20


@pytest.mark.parametrize("pack", [tar_of, zip_of])
def test_archive_that_fills_the_disk_leaves_nothing(
    disk: Path, tmp_path: Path, pack: Callable[[dict[str, bytes]], bytes]
) -> None:
    archive = tmp_path / "upload"
    archive.write_bytes(pack({"a": NOISE, "b/c": NOISE, "d": NOISE}))
    with pytest.raises(StorageFull):
        unpack(archive, disk / "out")
    assert list(disk.iterdir()) == []


def test_archive_of_more_files_than_the_disk_has_room_for_leaves_nothing(disk: Path, tmp_path: Path) -> None:
    archive = tmp_path / "upload"
    archive.write_bytes(tar_of({f"{number}/a": b"" for number in range(50)}))
    with pytest.raises(StorageFull):
        unpack(archive, disk / "out")
    assert list(disk.iterdir()) == []


def test_check_on_a_full_disk_keeps_the_upload_for_another_try(disk: Path) -> None:
    folders = DatasetFolders(disk)
    with folders.claim("ds_1") as claim:
        (claim.folder / ARCHIVE).write_bytes(zip_of({"a": NOISE * 3}))
        claim.keep_upload()
    recorded: list[object] = []
    with pytest.raises(StorageFull):
        check_upload(folders, "ds_1", check_winoground, recorded.append)
    assert recorded == []
    assert [file.name for file in folders.upload("ds_1").iterdir()] == [ARCHIVE]
    assert list(folders.work.iterdir()) == []


LIMITED = """
import asyncio, resource, sys
from pathlib import Path
from sds_clip.app.errors import StorageFull
from sds_clip.app.datasets.receive import receive
from sds_clip.app.datasets.unpack import unpack

folder = Path(sys.argv[1])
resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, 2**20))

async def stream():
    for _ in range(8):
        yield bytes(2**18)

for fill in (
    lambda: asyncio.run(receive(stream(), folder / "upload", len, max_bytes=2**30)),
    lambda: unpack(folder / "archive", folder / "out"),
):
    try:
        fill()
    except StorageFull:
        print(sorted(path.name for path in folder.iterdir()))
"""


def test_file_over_what_the_system_allows_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "archive").write_bytes(zip_of({"a": NOISE + NOISE}))
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines() == ["['archive']", "['archive']"], done.stderr
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] != 2**20
