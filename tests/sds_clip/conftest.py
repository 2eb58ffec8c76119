import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.app.serverside import RunningServer, running_server
from tests.sds_clip.transcript import sections


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "transcript" in metafunc.fixturenames:
        metafunc.parametrize("transcript", list(sections(Path(metafunc.module.__file__))))


@pytest.fixture(scope="session")
def checkpoint(tiny_folder: Path) -> Path:
    """A folder that `local-dir:` names."""
    return tiny_folder


@pytest.fixture(autouse=True)
def own_data_dir(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nothing is written beside the sources."""
    monkeypatch.setenv("SDS_CLIP_DATA_DIR", str(tmp_path / "data"))


@pytest.fixture(autouse=True)
def own_signals() -> Iterator[None]:
    """A worker holds its signals; without this, the tests that come after would have it hold theirs."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def siglip(tmp_path: Path, siglip_folder: Path) -> None:
    (tmp_path / "siglip").symlink_to(siglip_folder)


@pytest.fixture
def photos(tmp_path: Path) -> list[Path]:
    """Three pictures of noise, of different sizes and formats."""
    paths = [tmp_path / name for name in ("a.png", "b.jpg", "c.webp")]
    for seed, (path, shape) in enumerate(zip(paths, [(60, 40), (33, 90), (70, 48)], strict=True)):
        # Coarse blocks, so that resizing leaves the pictures different.
        blocks = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
        Image.fromarray(blocks).resize(shape, Image.Resampling.NEAREST).save(path)
    return paths


@pytest.fixture(scope="session")
def registered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder below which `service` lets data sets be registered."""
    return tmp_path_factory.mktemp("registered")


@pytest.fixture(scope="session")
def service(tmp_path_factory: pytest.TempPathFactory, registered: Path) -> Iterator[RunningServer]:
    """The demo model served with a database: data sets, jobs and versions, and no worker."""
    folder = tmp_path_factory.mktemp("service")
    options = ("--model", "demo", "--device", "cpu")
    settings = {
        "SDS_CLIP_DATABASE_URL": f"sqlite:///{folder}/db",
        "SDS_CLIP_DATASET_ROOTS": str(registered),
    }
    with running_server(folder, *options, **settings) as server:
        yield server
