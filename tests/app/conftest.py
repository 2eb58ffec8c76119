"""The service over small CLIPs with random weights, and pictures to send it."""

import base64
import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from starlette.testclient import TestClient

from sds_clip.app.main import create_app
from sds_clip.app.settings import Settings
from sds_clip.models.checkpoints.load import load_clip
from sds_clip.models.clip.mixed import as_member
from sds_clip.models.clip.model import Clip
from tests.checkpoints import save_tiny_clip


@pytest.fixture(scope="session")
def small_reference(tiny_folder: Path) -> str:
    return f"local-dir:{tiny_folder}"


@pytest.fixture(scope="session")
def small_clip(small_reference: str) -> Clip:
    return load_clip(small_reference, device="cpu", precision="float32")


@pytest.fixture(scope="session")
def small_member(small_clip: Clip) -> Clip:
    """The same, as a service holds it. A service that is given it has less to do at its start."""
    return as_member(small_clip)


@pytest.fixture(scope="session")
def other_clip(tmp_path_factory: pytest.TempPathFactory) -> Clip:
    """Another version of the same architecture."""
    folder = save_tiny_clip(tmp_path_factory.mktemp("other") / "tiny", seed=2)
    return load_clip(f"local-dir:{folder}", device="cpu", precision="float32")


@pytest.fixture(autouse=True)
def _metrics_are_always_new(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sds_clip.app.metrics.FRESH_S", 0.0)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(data_dir=tmp_path / "data", max_body_bytes=4 * 2**20, threads=1)


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory, small_member: Clip) -> Iterator[TestClient]:
    """The whole service over a small CLIP, in this process, for all tests of a file."""
    data_dir = tmp_path_factory.mktemp("data")
    settings = Settings(data_dir=data_dir, max_body_bytes=4 * 2**20, threads=1)
    with TestClient(create_app(settings, {"small": small_member}), base_url="http://localhost") as client:
        yield client


def png(width: int = 40, height: int = 30, *, seed: int = 0, kind: str = "PNG") -> bytes:
    """A picture of noise."""
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    file = io.BytesIO()
    PIL.Image.fromarray(pixels).save(file, kind)
    return file.getvalue()


def base64_of(data: bytes) -> str:
    return base64.b64encode(data).decode()
