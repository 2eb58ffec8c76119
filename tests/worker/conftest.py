"""A database, data sets and a small model for the tests of workers; everything real, and small."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from sds_clip.app.store import Store
from sds_clip.models.checkpoints.load import load_clip
from sds_clip.models.clip.model import Clip
from sds_clip.models.evaluation.scorers import ClipScorer
from sds_clip.worker.config import WorkerConfig
from sds_clip.worker.valkey import Valkey
from tests.teachers import save_sd_teacher
from tests.training import save_coco
from tests.worker.sets import add_ready, save_winoground
from tests.worker.work import Asked, Encoded, Work


@pytest.fixture(scope="session")
def pairs_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("worker") / "pairs"
    save_coco(folder)
    return folder


@pytest.fixture(scope="session")
def winoground_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_winoground(tmp_path_factory.mktemp("worker") / "winoground")


@pytest.fixture(scope="session")
def teacher_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_sd_teacher(tmp_path_factory.mktemp("worker") / "teacher")


@pytest.fixture
def store(database_url: str) -> Iterator[Store]:
    opened = Store(database_url)
    yield opened
    opened.close()


@pytest.fixture
def config(database_url: str, tmp_path: Path) -> WorkerConfig:
    """A slot with no broker at its address, which it does not need, and short times."""
    return WorkerConfig(
        broker_url=f"redis+socket://{tmp_path}/no-broker.sock",
        database_url=database_url,
        data_dir=tmp_path / "data",
        queue="finetune",
        device="cpu",
        threads=1,
        lease_ttl_s=30.0,
        idle_tick_s=0.1,
        watch_every_s=0.1,
        report_every_s=0.1,
        reap_every_s=0.2,
        retry_base_s=0.1,
        keep_warm=False,
        checks_datasets=False,
        min_save_interval_s=0.0,
    )


@pytest.fixture
def pairs_id(store: Store, config: WorkerConfig, pairs_folder: Path) -> str:
    return add_ready(store, config, pairs_folder, "pairs")


@pytest.fixture
def winoground_id(store: Store, config: WorkerConfig, winoground_folder: Path) -> str:
    return add_ready(store, config, winoground_folder, "winoground")


@pytest.fixture(scope="session")
def base(tiny_folder: Path) -> Clip:
    return load_clip(f"local-dir:{tiny_folder}", device="cpu", precision="float32")


@pytest.fixture
def tuning(tiny_folder: Path, pairs_id: str) -> Asked:
    """A short run over L_CLIP alone."""
    return {
        "base": f"local-dir:{tiny_folder}",
        "objective": "clip",
        "training_data": pairs_id,
        "steps": 6,
        "batch_size": 8,
        "warmup_steps": 1,
        "lr": 1e-3,
        "precision": "float32",
        "log_every": 1,
        "save_every": 2,
    }


@pytest.fixture
def valkey() -> Iterator[Valkey]:
    with tempfile.TemporaryDirectory(prefix="vk-") as folder, Valkey(Path(folder) / "v") as started:
        yield started


@pytest.fixture
def work(config: WorkerConfig, store: Store) -> Work:
    return Work(config, store)


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> Encoded:
    """What each scorer has sent through its model, in the order in which they were closed."""
    found: Encoded = []
    close = ClipScorer.close

    def closing(scorer: ClipScorer) -> None:
        found.append(scorer.encoded)
        close(scorer)

    monkeypatch.setattr(ClipScorer, "close", closing)
    return found
