from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from models.teacher.caption_cache import CaptionCache
from models.teacher.errors import TeacherError

CAPTIONS = ["a red cube", "", "ein Würfel \ud800"]


def embeddings(dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(3, 4, 5, generator=torch.Generator().manual_seed(0)).to(dtype)


def files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_embeddings_come_back_as_they_were_in_another_process(tmp_path: Path, dtype: torch.dtype) -> None:
    CaptionCache(tmp_path).put_many("v1", CAPTIONS, embeddings(dtype))
    found = CaptionCache(tmp_path).get_many("v1", CAPTIONS, dtype)
    for embedding, expected in zip(found, embeddings(dtype), strict=True):
        assert embedding is not None
        assert torch.equal(embedding, expected)
    assert {len(path.parent.name) for path in files(tmp_path)} == {2}


def test_another_teacher_format_or_caption_is_a_miss(tmp_path: Path) -> None:
    cache = CaptionCache(tmp_path)
    cache.put_many("v1", CAPTIONS, embeddings())
    assert cache.get_many("v2", CAPTIONS[:1], torch.float32) == [None]
    assert cache.get_many("v1", CAPTIONS[:1], torch.bfloat16) == [None]
    assert cache.get_many("v1", ["a red Cube"], torch.float32) == [None]


@pytest.mark.parametrize(
    "damage", [lambda data: data[:-1], lambda data: b"", lambda data: data[:-1] + b"\x7f"]
)
def test_damaged_file_is_a_miss_and_is_written_anew(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    CaptionCache(tmp_path).put_many("v1", CAPTIONS[:1], embeddings()[:1])
    (file,) = files(tmp_path)
    file.write_bytes(damage(file.read_bytes()))
    cache = CaptionCache(tmp_path)
    assert cache.get_many("v1", CAPTIONS[:1], torch.float32) == [None]
    cache.put_many("v1", CAPTIONS[:1], embeddings()[:1])
    (embedding,) = CaptionCache(tmp_path).get_many("v1", CAPTIONS[:1], torch.float32)
    assert embedding is not None
    assert torch.equal(embedding, embeddings()[0])


def test_memory_holds_the_captions_used_last_and_no_more_than_allowed(tmp_path: Path) -> None:
    cache = CaptionCache(tmp_path, memory_bytes=2 * embeddings()[0].nbytes)
    cache.put_many("v1", CAPTIONS[:2], embeddings()[:2])
    cache.get_many("v1", CAPTIONS[:1], torch.float32)
    cache.put_many("v1", CAPTIONS[2:], embeddings()[2:])
    for file in files(tmp_path):
        file.unlink()
    held = [found is not None for found in cache.get_many("v1", CAPTIONS, torch.float32)]
    assert held == [True, False, True]


def test_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(TeacherError, match="file cannot be written"):
        CaptionCache(tmp_path / "file").put_many("v1", CAPTIONS, embeddings())


def test_failed_write_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Path, data: bytes) -> int:
        self.touch()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(TeacherError, match="No space left on device"):
        CaptionCache(tmp_path).put_many("v1", CAPTIONS, embeddings())
    assert files(tmp_path) == []
