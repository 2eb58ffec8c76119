import json
from pathlib import Path

import pytest
import torch

from sds_clip.app.data_folder import DataFolder
from sds_clip.app.store import Store
from sds_clip.cli import main
from tests.sds_clip.transcript import test_transcript  # noqa: F401


def test_a_whole_installation_is_in_order(checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--model", f"local-dir:{checkpoint}", "--precision", "float32", "--json"]) == 0
    found = {each["name"]: each for each in json.loads(capsys.readouterr().out)}
    assert found["torch"]["detail"] == torch.__version__
    assert found["forward"]["status"] == "ok"


@pytest.fixture
def of_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The settings name a database, and a folder that is not its own."""
    monkeypatch.setenv("SDS_CLIP_DATABASE_URL", f"sqlite:///{tmp_path / 'jobs.db'}")
    monkeypatch.setenv("SDS_CLIP_DATA_DIR", str(tmp_path / "wrong"))
    store = Store(f"sqlite:///{tmp_path / 'jobs.db'}")
    store.migrate()
    DataFolder(store.database, tmp_path / "right").check()
    store.close()
