import os
import resource
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from sds_clip.models.atomic import atomic_file, atomic_folder, write_atomic
from sds_clip.models.errors import CheckpointError


def test_folder_appears_whole(tmp_path: Path) -> None:
    with atomic_folder(tmp_path / "new" / "out") as working:
        (working / "file").write_text("content")
        assert not (tmp_path / "new" / "out").exists()
    assert (tmp_path / "new" / "out" / "file").read_text() == "content"
    assert [left.name for left in (tmp_path / "new").iterdir()] == ["out"]


def test_relative_folder_is_written_where_it_is_meant(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with atomic_folder(Path("out")) as working:
        (working / "file").touch()
    assert (tmp_path / "out" / "file").is_file()


def fail_half_way(out: Path) -> None:
    with atomic_folder(out) as working:
        (working / "file").write_text("half")
        raise ZeroDivisionError


def test_failure_leaves_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError):
        fail_half_way(tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("existing", ["file", "folder", "dangling link"])
def test_whatever_exists_is_never_overwritten(existing: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    {"file": out.touch, "folder": out.mkdir, "dangling link": lambda: out.symlink_to("none")}[existing]()
    with pytest.raises(CheckpointError, match="exists"), atomic_folder(out):
        raise AssertionError("must not be reached")


def write_with_python(out: Path) -> None:
    with atomic_folder(out) as working:
        (working / "file").write_bytes(bytes(200_000))


def write_with_safetensors(out: Path) -> None:
    with atomic_folder(out) as working:
        save_file({"x": torch.zeros(50_000)}, working / "file")


@pytest.mark.parametrize("write", [write_with_python, write_with_safetensors])
def test_full_disk_is_an_error_that_says_so_and_leaves_nothing(
    write: Callable[[Path], None], tmp_path: Path
) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))  # as a disk with so much left
    try:
        with pytest.raises(CheckpointError, match="cannot be written"):
            write(tmp_path / "out")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert list(tmp_path.iterdir()) == []


def test_file_is_replaced_at_the_end_of_the_block(tmp_path: Path) -> None:
    file = tmp_path / "new" / "file"
    write_atomic(file, "old")
    with atomic_file(file) as opened:
        opened.write(b"new")
        opened.flush()
        assert file.read_text() == "old"
    assert file.read_text() == "new"
    assert list(file.parent.iterdir()) == [file]


def test_failure_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    file = tmp_path / "file"
    write_atomic(file, "old")
    with pytest.raises(ZeroDivisionError), atomic_file(file) as opened:
        opened.write(b"%d" % (1 // 0))
    assert file.read_text() == "old"
    assert list(tmp_path.iterdir()) == [file]


def test_secret_is_never_readable_by_others(tmp_path: Path) -> None:
    with atomic_file(tmp_path / "secret", mode=0o600):
        (working,) = tmp_path.iterdir()
        assert working.stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "secret").stat().st_mode & 0o777 == 0o600


def test_folder_may_hold_folders(tmp_path: Path) -> None:
    with atomic_folder(tmp_path / "out") as working:
        (working / "below").mkdir()
        (working / "below" / "file").write_text("content")
    assert (tmp_path / "out" / "below" / "file").read_text() == "content"


def test_everything_is_flushed_to_the_disk_before_it_gets_its_name_and_the_name_after_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A power cut cannot be made here, but the order of the calls can be seen."""
    calls: list[str] = []

    def shown(file: int | Path) -> str:
        path = Path(os.readlink(f"/proc/self/fd/{file}") if isinstance(file, int) else file)
        return "beside" if path.name.startswith(".") else path.name

    def noting(name: str) -> Callable[..., None]:
        function = getattr(os, name)

        def call(*files: int | Path) -> None:
            calls.append(" ".join([name, *map(shown, files)]))
            function(*files)

        return call

    for name in ("fsync", "replace", "rename"):
        monkeypatch.setattr(os, name, noting(name))
    write_atomic(tmp_path / "text", "content")
    assert calls == ["fsync beside", "replace beside text", f"fsync {tmp_path.name}"]
    calls.clear()
    with atomic_folder(tmp_path / "folder") as working:
        (working / "file").write_text("content")
    assert calls == ["fsync file", "fsync beside", "rename beside folder", f"fsync {tmp_path.name}"]
