from pathlib import Path

import pytest
import torch

from sds_clip.models.teacher.caption_cache import CaptionCache

CAPTIONS = ["a red cube", "", "ein Würfel \ud800"]


def embeddings(dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(3, 4, 5, generator=torch.Generator().manual_seed(0)).to(dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_embeddings_come_back_as_they_were_in_another_process(tmp_path: Path, dtype: torch.dtype) -> None:
    CaptionCache(tmp_path).put_many("v1", CAPTIONS, embeddings(dtype))
    found = CaptionCache(tmp_path).get_many("v1", CAPTIONS, dtype)
    for embedding, expected in zip(found, embeddings(dtype), strict=True):
        assert embedding is not None
        assert torch.equal(embedding, expected)


def test_another_teacher_format_or_caption_is_a_miss(tmp_path: Path) -> None:
    cache = CaptionCache(tmp_path)
    cache.put_many("v1", CAPTIONS, embeddings())
    assert cache.get_many("v2", CAPTIONS[:1], torch.float32) == [None]
    assert cache.get_many("v1", CAPTIONS[:1], torch.bfloat16) == [None]
    assert cache.get_many("v1", ["a red Cube"], torch.float32) == [None]


def test_memory_holds_the_captions_used_last_and_no_more_than_allowed(tmp_path: Path) -> None:
    cache = CaptionCache(tmp_path, memory_bytes=2 * embeddings()[0].nbytes)
    cache.put_many("v1", CAPTIONS[:2], embeddings()[:2])
    cache.get_many("v1", CAPTIONS[:1], torch.float32)
    cache.put_many("v1", CAPTIONS[2:], embeddings()[2:])
    cache.close()
    (tmp_path / "captions.sqlite3").unlink()
    held = [found is not None for found in cache.get_many("v1", CAPTIONS, torch.float32)]
    assert held == [True, False, True]


def test_folder_that_cannot_be_written_costs_only_the_computing(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    cache = CaptionCache(tmp_path / "file", memory_bytes=0)
    cache.put_many("v1", CAPTIONS, embeddings())
    assert cache.get_many("v1", CAPTIONS, torch.float32) == [None] * 3
