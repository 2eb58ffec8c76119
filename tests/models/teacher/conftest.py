from pathlib import Path

import pytest

from sds_clip.models.teacher.load import load_teacher
from sds_clip.models.teacher.teacher import Teacher
from tests.teachers import save_sd_teacher


@pytest.fixture(scope="session")
def epsilon_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_sd_teacher(tmp_path_factory.mktemp("teachers") / "epsilon")


@pytest.fixture(scope="session")
def v_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_sd_teacher(tmp_path_factory.mktemp("teachers") / "v", prediction_type="v_prediction", seed=1)


@pytest.fixture(scope="session", params=["epsilon", "v_prediction"])
def folder(request: pytest.FixtureRequest, epsilon_folder: Path, v_folder: Path) -> Path:
    return epsilon_folder if request.param == "epsilon" else v_folder


@pytest.fixture(scope="session")
def teacher(folder: Path) -> Teacher:
    return load_teacher(str(folder), device="cpu", precision="float32", vae=True)
