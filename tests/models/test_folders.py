import resource
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from models.folders import whole_folder
from models.references import CheckpointError


def test_folder_appears_whole(tmp_path: Path) -> None:
    with whole_folder(tmp_path / "new" / "out") as working:
        (working / "file").write_text("content")
        assert not (tmp_path / "new" / "out").exists()
    assert (tmp_path / "new" / "out" / "file").read_text() == "content"
    assert [left.name for left in (tmp_path / "new").iterdir()] == ["out"]


def test_relative_folder_is_written_where_it_is_meant(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with whole_folder(Path("out")) as working:
        (working / "file").touch()
    assert (tmp_path / "out" / "file").is_file()


def fail_half_way(out: Path) -> None:
    with whole_folder(out) as working:
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
    with pytest.raises(CheckpointError, match="exists"), whole_folder(out):
        raise AssertionError("must not be reached")


def write_with_python(out: Path) -> None:
    with whole_folder(out) as working:
        (working / "file").write_bytes(bytes(200_000))


def write_with_safetensors(out: Path) -> None:
    with whole_folder(out) as working:
        save_file({"x": torch.zeros(50_000)}, working / "file")


@pytest.mark.parametrize("write", [write_with_python, write_with_safetensors])
def test_full_disk_is_an_error_that_says_so_and_leaves_nothing(
    write: Callable[[Path], None], tmp_path: Path
) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))  # as a disk with so much left
    try:
        with pytest.raises(CheckpointError, match="free some space"):
            write(tmp_path / "out")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert list(tmp_path.iterdir()) == []
