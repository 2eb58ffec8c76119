from pathlib import Path

import pytest

from sds_clip.models.checkpoints.load import load_clip
from sds_clip.models.clip.model import Clip
from sds_clip.models.data.check import check_pairs
from sds_clip.models.data.open import open_pairs
from sds_clip.models.data.pairs import PairSet
from sds_clip.models.teacher.load import load_teacher
from sds_clip.models.teacher.teacher import Teacher
from sds_clip.models.training.parts import Parts
from tests.teachers import save_sd_teacher
from tests.training import save_coco


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_coco(tmp_path_factory.mktemp("training") / "coco")


@pytest.fixture(scope="session")
def teacher_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_sd_teacher(tmp_path_factory.mktemp("training") / "teacher")


@pytest.fixture(scope="session")
def pairs(data: Path) -> PairSet:
    return check_pairs(open_pairs(data), workers=1).pairs


@pytest.fixture(scope="session")
def base(tiny_folder: Path) -> Clip:
    return load_clip(f"local-dir:{tiny_folder}", device="cpu", precision="float32")


@pytest.fixture(scope="session")
def sigmoid_base(siglip_folder: Path) -> Clip:
    return load_clip(f"local-dir:{siglip_folder}", device="cpu", precision="float32")


@pytest.fixture(scope="session")
def teacher(teacher_folder: Path) -> Teacher:
    return load_teacher(str(teacher_folder), device="cpu", precision="float32", vae=True)


@pytest.fixture(scope="session")
def parts(base: Clip, pairs: PairSet, teacher: Teacher) -> Parts:
    return Parts(base, pairs, teacher)
