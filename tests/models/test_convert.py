from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import open_clip
import PIL.Image
import pytest
import torch
from torch import Tensor, nn

from sds_clip.models.checkpoints.load import CheckpointError, load_clip
from sds_clip.models.export.convert import convert_checkpoint
from tests.checkpoints import TINY, tiny_network


@pytest.fixture(autouse=True)
def tiny_architecture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let open_clip know the tiny model, and weights of both activations for it."""
    from open_clip import factory, pretrained

    entry = pretrained._VITB32["laion2b_e16"]
    monkeypatch.setitem(factory._MODEL_CONFIGS, "Tiny", TINY)
    monkeypatch.setitem(factory._MODEL_CONFIGS, "Tiny-quickgelu", {**TINY, "quick_gelu": True})
    tags = {"plain": entry, "quick": {**entry, "quick_gelu": True}}
    monkeypatch.setitem(pretrained._PRETRAINED, "Tiny", tags)


@pytest.fixture(scope="module")
def weights() -> dict[str, Tensor]:
    return tiny_network().state_dict()


def saved(content: Any, path: Path) -> Path:
    torch.save(content, path)
    return path


@pytest.mark.parametrize(
    "wrap",
    [
        lambda weights: weights,
        lambda weights: {"epoch": 3, "name": "run", "state_dict": weights},
        lambda weights: {"state_dict": {f"module.{name}": value for name, value in weights.items()}},
    ],
    ids=["bare", "training", "distributed"],
)
def test_converted_folder_encodes_as_the_pickle(
    weights: dict[str, Tensor], wrap: Any, tmp_path: Path
) -> None:
    file = saved(wrap(weights), tmp_path / "epoch.pt")
    folder = convert_checkpoint(file, tmp_path / "out", architecture="Tiny-quickgelu")
    clip = load_clip(f"local-dir:{folder}", precision="float32")
    theirs, _, preprocess = open_clip.create_model_and_transforms("Tiny-quickgelu", pretrained=str(file))
    pixels = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(
            clip.encode_image(pixels, normalize=False), theirs.eval().encode_image(pixels), atol=1e-5, rtol=0
        )
    assert clip.quick_gelu
    assert sorted(file.name for file in folder.iterdir()) == [
        "open_clip_config.json",
        "open_clip_model.safetensors",
    ]
    picture = PIL.Image.effect_mandelbrot((50, 40), (-2, -1.5, 1, 1.2), 20).convert("RGB")
    assert torch.equal(clip.preprocess(picture), preprocess(picture))


def test_half_precision_weights_stay_half(weights: dict[str, Tensor], tmp_path: Path) -> None:
    file = saved({name: value.half() for name, value in weights.items()}, tmp_path / "half.pt")
    folder = convert_checkpoint(file, tmp_path / "out", architecture="Tiny+gelu")
    size = (folder / "open_clip_model.safetensors").stat().st_size
    assert size < 2.1 * sum(value.numel() for value in weights.values())
    assert not load_clip(f"local-dir:{folder}").quick_gelu


def test_activation_must_be_stated_where_it_is_not_plain(weights: dict[str, Tensor], tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"Tiny\+quickgelu"):
        convert_checkpoint(saved(weights, tmp_path / "a.pt"), tmp_path / "out", architecture="Tiny")


def test_given_preprocessing_is_written(weights: dict[str, Tensor], tmp_path: Path) -> None:
    stated = {"mean": [0.5] * 3, "std": [0.4] * 3, "interpolation": "bilinear", "resize_mode": "squash"}
    folder = convert_checkpoint(
        saved(weights, tmp_path / "a.pt"), tmp_path / "out", architecture="Tiny+gelu", preprocess=stated
    )
    assert json.loads((folder / "open_clip_config.json").read_text())["preprocess_cfg"] == {
        **stated,
        "fill_color": 0,
    }


def test_given_preprocessing_that_says_too_little_is_refused(
    weights: dict[str, Tensor], tmp_path: Path
) -> None:
    for stated in ({}, {"mean": [0.5] * 3}):
        with pytest.raises(CheckpointError, match=r"preprocess_cfg\.std"):
            convert_checkpoint(
                saved(weights, tmp_path / "a.pt"),
                tmp_path / "out",
                architecture="Tiny+gelu",
                preprocess=stated,
            )
    assert not (tmp_path / "out").exists()


def test_written_files_can_be_read_by_others(weights: dict[str, Tensor], tmp_path: Path) -> None:
    folder = convert_checkpoint(saved(weights, tmp_path / "a.pt"), tmp_path / "out", architecture="Tiny+gelu")
    assert {file.stat().st_mode & 0o777 for file in folder.iterdir()} == {0o644}


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may read everything")
def test_file_that_may_not_be_read_is_not_called_broken(weights: dict[str, Tensor], tmp_path: Path) -> None:
    file = saved(weights, tmp_path / "a.pt")
    file.chmod(0)
    with pytest.raises(CheckpointError, match="permissions"):
        convert_checkpoint(file, tmp_path / "out", architecture="Tiny+gelu")


class Innocent:
    def __reduce__(self) -> tuple[Any, ...]:
        return print, ("this must never be printed",)


def test_pickle_that_would_run_code_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = saved({"state_dict": {}, "extra": Innocent()}, tmp_path / "evil.pt")
    with pytest.raises(CheckpointError, match="tensors only"):
        convert_checkpoint(file, tmp_path / "out", architecture="Tiny+gelu")
    assert capsys.readouterr().out == ""


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")
def test_torchscript_archive_is_refused_with_a_published_name(tmp_path: Path) -> None:
    torch.jit.script(nn.Linear(2, 2)).save(str(tmp_path / "openai.pt"))
    with pytest.raises(CheckpointError, match="ViT-B-32/openai"):
        convert_checkpoint(tmp_path / "openai.pt", tmp_path / "out", architecture="Tiny-quickgelu")


def test_openai_state_dict_needs_quick_gelu(weights: dict[str, Tensor], tmp_path: Path) -> None:
    file = saved({**weights, "input_resolution": torch.tensor(32)}, tmp_path / "openai.pt")
    with pytest.raises(CheckpointError, match="Tiny-quickgelu"):
        convert_checkpoint(file, tmp_path / "out", architecture="Tiny+gelu")
    folder = convert_checkpoint(file, tmp_path / "out", architecture="Tiny-quickgelu")
    assert load_clip(f"local-dir:{folder}").quick_gelu


@pytest.mark.parametrize(
    "content", [[1, 2], {}, {"optimizer": {"lr": 1}}, {"state_dict": {"weird": torch.ones(2)}}, "text"]
)
def test_file_without_the_models_weights_leaves_nothing_behind(content: Any, tmp_path: Path) -> None:
    file = saved(content, tmp_path / "other.pt")
    with pytest.raises(CheckpointError):
        convert_checkpoint(file, tmp_path / "out", architecture="Tiny+gelu")
    assert [left.name for left in tmp_path.iterdir()] == ["other.pt"]


def test_weights_that_are_not_finite_are_refused(weights: dict[str, Tensor], tmp_path: Path) -> None:
    broken = {**weights, "text_projection": torch.full_like(weights["text_projection"], float("nan"))}
    with pytest.raises(CheckpointError, match="text_projection"):
        convert_checkpoint(saved(broken, tmp_path / "a.pt"), tmp_path / "out", architecture="Tiny+gelu")


def test_weights_that_were_quantised_are_refused(weights: dict[str, Tensor], tmp_path: Path) -> None:
    quantised = {**weights, "text_projection": (weights["text_projection"] * 10).to(torch.int8)}
    with pytest.raises(CheckpointError, match=r"whole numbers.*text_projection"):
        convert_checkpoint(saved(quantised, tmp_path / "a.pt"), tmp_path / "out", architecture="Tiny+gelu")


def test_existing_folder_is_never_overwritten(weights: dict[str, Tensor], tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with pytest.raises(CheckpointError, match="exists"):
        convert_checkpoint(saved(weights, tmp_path / "a.pt"), tmp_path / "out", architecture="Tiny+gelu")
