"""Evaluation computes with the weights as they are, also where a service packs them."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from sds_clip.models.checkpoints.load import load_clip
from sds_clip.models.clip import packed
from sds_clip.models.clip.model import Clip
from sds_clip.models.clip.packed import to_serve
from sds_clip.models.evaluation.evaluation import Evaluator, write_evaluation
from sds_clip.models.evaluation.request import EvaluationRequest
from sds_clip.models.teacher.teacher import Teacher
from tests.worker.sets import save_winoground


def load(reference: str, precision: str) -> Clip:
    return load_clip(reference, device="cpu", precision=precision)


def no_teacher(reference: str, precision: str) -> Teacher:
    raise AssertionError


def files_of(reference: str, data: Path, folder: Path) -> dict[str, bytes]:
    """What an evaluation writes of a model in float32, and as a service computes it in bfloat16."""
    parts = {name: folder / name for name in ("work", "features", "scores")}
    evaluator = Evaluator(load_clip=load, load_teacher=no_teacher, **parts)
    asked = EvaluationRequest(benchmark="winoground", data=data, model=reference, served_precision="bfloat16")
    files = write_evaluation(folder, evaluator.evaluate(asked))
    return {name: file.read_bytes() for name, file in files.items()}


@pytest.mark.skipif(not packed._can_pack(torch.float32), reason="torch cannot pack weights on this machine")
def test_results_are_the_same_bytes_whether_or_not_a_service_packs(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reference, data = f"local-dir:{tiny_folder}", save_winoground(tmp_path / "winoground")
    for precision in ("float32", "bfloat16"):
        assert to_serve(load(reference, precision)).packed
    found = files_of(reference, data, tmp_path / "packing")
    monkeypatch.setattr(torch.ops, "mkldnn", SimpleNamespace())
    packed._can_pack.cache_clear()
    try:
        assert not to_serve(load(reference, "float32")).packed
        assert files_of(reference, data, tmp_path / "plain") == found
    finally:
        packed._can_pack.cache_clear()


def test_nothing_is_packed_for_an_evaluation(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Small weights compute the same either way, so that the results would not tell."""
    monkeypatch.delattr(packed, "_packed")
    files_of(f"local-dir:{tiny_folder}", save_winoground(tmp_path / "winoground"), tmp_path / "found")
