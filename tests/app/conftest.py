"""Small CLIPs with random weights: real checkpoints in real folders, quick to load."""

import base64
import io
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch
from open_clip.model import CLIP
from safetensors.torch import save_file
from starlette.testclient import TestClient

from app.main import create_app
from app.settings import Settings
from models.checkpoints import load_clip
from models.clip import Clip

MODEL_CONFIG = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "patch_size": 16, "width": 32, "layers": 2, "head_width": 16},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2},
}
PREPROCESS_CONFIG = {
    "mean": [0.48, 0.46, 0.41],
    "std": [0.27, 0.26, 0.28],
    "interpolation": "bicubic",
    "resize_mode": "shortest",
}


def save_small_clip(folder: Path, *, seed: int) -> str:
    """Save a small random CLIP as an open_clip folder, and return its reference."""
    torch.manual_seed(seed)
    network = CLIP(**MODEL_CONFIG)
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.ndim >= 1:
                parameter.add_(0.05 * torch.randn_like(parameter))
    folder.mkdir(parents=True)
    config = {"model_cfg": MODEL_CONFIG, "preprocess_cfg": PREPROCESS_CONFIG}
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    save_file(network.state_dict(), folder / "open_clip_model.safetensors")
    return f"local-dir:{folder}"


@pytest.fixture(scope="session")
def small_reference(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save_small_clip(tmp_path_factory.mktemp("small") / "first", seed=1)


@pytest.fixture(scope="session")
def small_clip(small_reference: str) -> Clip:
    return load_clip(small_reference, device="cpu", precision="float32")


@pytest.fixture(scope="session")
def other_clip(tmp_path_factory: pytest.TempPathFactory) -> Clip:
    """Another version of the same architecture."""
    reference = save_small_clip(tmp_path_factory.mktemp("small") / "second", seed=2)
    return load_clip(reference, device="cpu", precision="float32")


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(data_dir=tmp_path / "data", max_body_bytes=4 * 2**20, decode_threads=1)


@pytest.fixture
def client(settings: Settings, small_clip: Clip) -> Iterator[TestClient]:
    """The whole service over a small CLIP, in this process."""
    with TestClient(create_app(settings, {"small": small_clip}), base_url="http://localhost") as client:
        yield client


def png(width: int = 40, height: int = 30, *, seed: int = 0, kind: str = "PNG") -> bytes:
    """A picture of noise."""
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    file = io.BytesIO()
    PIL.Image.fromarray(pixels).save(file, kind)
    return file.getvalue()


def base64_of(data: bytes) -> str:
    return base64.b64encode(data).decode()
