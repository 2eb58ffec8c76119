from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from PIL import Image

from tests.app.serverside import RunningServer, running_server
from tests.install.environment import LINKED, Environment, build_wheel
from tools.extras import packages


@pytest.fixture(scope="package")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_wheel(tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="package")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Environment]:
    """For an extra, an environment with the wheel and what the extra installs."""
    made: dict[str, Environment] = {}

    def environment(extra: str) -> Environment:
        if extra not in made:
            made[extra] = Environment(tmp_path_factory.mktemp(extra))
            made[extra].install(wheel, "--no-deps")
            made[extra].link(packages(extra))
        return made[extra]

    return environment


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    Image.new("RGB", (40, 40), (200, 30, 30)).save(tmp_path / "red.png")
    return tmp_path / "red.png"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    folder = tmp_path_factory.mktemp("server")
    database = f"sqlite:///{folder}/db"
    with running_server(folder, "--model", "demo", SDS_CLIP_DATABASE_URL=database) as server:
        yield server


@pytest.fixture
def foreign(tmp_path: Path) -> Path:
    """A folder of somebody else's, with packages named as ours, none of which we may import."""
    for name in LINKED:
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text(f"raise RuntimeError('{name} of the current folder')\n")
    return tmp_path
