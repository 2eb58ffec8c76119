"""Checkpoints that many tests share, made once for the whole run."""

from pathlib import Path

import open_clip
import pytest
import torch

from tests.checkpoints import PREPROCESS, save_checkpoint, save_siglip, save_tiny_clip


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_clip(tmp_path_factory.mktemp("checkpoints") / "tiny")


@pytest.fixture(scope="session")
def siglip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_siglip(tmp_path_factory.mktemp("checkpoints") / "siglip")


@pytest.fixture(scope="session")
def vit_b_32_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """ViT-B-32 with random weights: 600 MB, so one for the whole run."""
    torch.manual_seed(0)
    network = open_clip.create_model("ViT-B-32", load_weights=False)
    config = open_clip.get_model_config("ViT-B-32")
    return save_checkpoint(
        tmp_path_factory.mktemp("checkpoints") / "b32", network.state_dict(), config, PREPROCESS
    )
