"""The wheel beside a project's own packages `app`, `models` and `worker`: the project's code finds both."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.install.environment import LINKED, Environment

pytestmark = pytest.mark.slow

BOTH = """
import app, demo, models, worker
import sds_clip.app.schemas.match, sds_clip.models.checkpoints.load, sds_clip.worker.celery_app
from sds_clip.commands import finetune

assert [each.OWN for each in (app, demo, models, worker)] == [True] * 4
print("both", finetune.__name__)
"""
TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")


@pytest.fixture
def project(tmp_path: Path) -> Path:
    for name in LINKED:
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("OWN = True\n")
    (tmp_path / "worker" / "__init__.py").write_text(
        "import celery, sds_clip.worker.celery_app\nOWN = True\ncelery = celery.Celery('both')\n"
    )
    for script in ("train.py", "models/train.py"):
        (tmp_path / script).write_text(BOTH)
    (tmp_path / "test_train.py").write_text(f"def test_both():\n    exec({BOTH!r})\n")
    return tmp_path


@pytest.mark.parametrize(
    ("command", "answer"),
    [
        (("train.py",), "both"),
        (("-m", "models.train"), "both"),
        ((*TORCHRUN, "train.py"), "both"),
        (("-m", "celery", "-A", "worker", "report"), "software ->"),
        (("-m", "pytest", "-q"), "1 passed"),
    ],
    ids=["script", "module", "torchrun", "celery", "pytest"],
)
def test_both_are_imported(
    environment: Callable[[str], Environment], project: Path, command: tuple[str, ...], answer: str
) -> None:
    train = environment("train")
    train.link(["pytest", "pluggy", "iniconfig", "Pygments"])
    done = train.run("python", *command, cwd=project)
    assert done.returncode == 0, done.stdout + done.stderr
    assert answer in done.stdout
