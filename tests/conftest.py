"""Checkpoints and databases that many tests share, made once for the whole run."""

import logging
import os
import signal
import tempfile
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
from hypothesis import settings

from tests.checkpoints import PREPROCESS, save_checkpoint, save_siglip, save_tiny_clip
from tests.databases import Databases
from tests.memory import memory_folder
from tests.postgres import NoPostgreSQL, PostgreSQL

settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out tests marked `long`, `compose` or `clients`, unless -m speaks of them."""
    unasked = {"long", "compose", "clients"} - set(config.getoption("-m").split())
    left_out = [item for item in items if any(item.get_closest_marker(marker) for marker in unasked)]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if item not in left_out]


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """What async tests run on: the loop that the service uses."""
    return "asyncio"


@pytest.fixture(scope="session", autouse=True)
def no_settings() -> Iterator[None]:
    """Whatever the developer has set in the environment stays out of the tests, shared servers included."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("SDS_CLIP_")]:
            patch.delenv(name)
        yield


@pytest.fixture(autouse=True)
def logs_as_before() -> Iterator[None]:
    """What a command sets for a process of its own is taken back, so that no later test writes to its stderr."""
    root = logging.getLogger()
    level = root.level
    yield
    root.setLevel(level)
    root.handlers = [each for each in root.handlers if type(each) is not logging.StreamHandler]


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


@pytest.fixture(scope="session")
def postgresql() -> Iterator[PostgreSQL]:
    try:
        server = PostgreSQL()
    except NoPostgreSQL as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(f"PostgreSQL cannot run here: {error}")
    yield server
    server.close()


@pytest.fixture(scope="session")
def sqlite_databases() -> Iterator[Databases]:
    with tempfile.TemporaryDirectory(dir=memory_folder(2**25)) as folder:
        yield Databases("sqlite", Path(folder), None)


@pytest.fixture(scope="session")
def postgresql_databases(postgresql: PostgreSQL, tmp_path_factory: pytest.TempPathFactory) -> Databases:
    return Databases("postgresql", tmp_path_factory.mktemp("unused"), postgresql)


@pytest.fixture
def databases(request: pytest.FixtureRequest) -> Databases:
    """SQLite's, unless a test asks for others (`tests.databases.on_both`)."""
    made: Databases = request.getfixturevalue(f"{getattr(request, 'param', 'sqlite')}_databases")
    return made


@pytest.fixture
def database_url(databases: Databases) -> str:
    """A database with every table, and nothing in them."""
    return databases.url(databases.migrated())
