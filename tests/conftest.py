"""Checkpoints that many tests share, made once for the whole run."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

# Before torch looks for GPUs: the expectations are the CPU's, and so is the time that the tests take.
if "SDS_CLIP_TEST_GPU" not in os.environ:
    os.environ["CUDA_VISIBLE_DEVICES"] = ""

# `make test &` in a script starts it deaf to Ctrl-C, and so would be all that it starts.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

import open_clip
import pytest
import torch

from tests.checkpoints import PREPROCESS, save_checkpoint, save_siglip, save_tiny_clip


@pytest.fixture(scope="session", autouse=True)
def no_settings() -> Iterator[None]:
    """Whatever the developer has set in the environment stays out of the tests, shared servers included."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("SDS_CLIP_")]:
            patch.delenv(name)
        yield


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
