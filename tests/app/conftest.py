"""The service over small CLIPs with random weights, and pictures to send it."""

import base64
import io
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
from numpy.typing import NDArray
from starlette.testclient import TestClient

from sds_clip.app.main import create_app
from sds_clip.app.settings import Settings
from sds_clip.models.checkpoints.load import load_clip
from sds_clip.models.checkpoints.model_config import CONFIG_FILE
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
    with serving(settings, small_member) as client:
        yield client


@pytest.fixture
def shortened(settings: Settings, tiny_folder: Path, tmp_path: Path) -> Iterator[TestClient]:
    """A service over a model whose configuration says that its vectors can be cut."""
    reference = f"local-dir:{with_dimensions(tiny_folder, tmp_path, [16, 8])}"
    with serving(settings, load_clip(reference, device="cpu", precision="float32")) as client:
        yield client


def with_dimensions(model: Path, scratch: Path, dimensions: Any) -> Path:
    """A copy of a model's folder whose configuration says that its vectors can be cut to these."""
    folder = Path(shutil.copytree(model, scratch / "matryoshka"))
    config = json.loads((folder / CONFIG_FILE).read_text())
    (folder / CONFIG_FILE).write_text(json.dumps({**config, "matryoshka_dimensions": dimensions}))
    return folder


def serving(settings: Settings, clip: Clip, name: str = "small") -> TestClient:
    """The whole service over a model, in this process."""
    return TestClient(create_app(settings, {name: clip}), base_url="http://localhost")


def embed(client: TestClient, **body: Any) -> NDArray[np.float32]:
    """The vectors of /embed."""
    results = client.post("/embed", json=body).json()["results"]
    return np.array([result["embedding"] for result in results], dtype=np.float32)


def png(width: int = 40, height: int = 30, *, seed: int = 0, kind: str = "PNG") -> bytes:
    """A picture of noise."""
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    file = io.BytesIO()
    PIL.Image.fromarray(pixels).save(file, kind)
    return file.getvalue()


def base64_of(data: bytes) -> str:
    return base64.b64encode(data).decode()
