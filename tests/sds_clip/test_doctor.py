import json
from pathlib import Path

import pytest
import torch

from app.data_folder import DataFolder
from app.store import Store
from sds_clip.cli import main


def findings(capsys: pytest.CaptureFixture[str]) -> dict[str, tuple[str, str]]:
    return {each["name"]: (each["status"], each["detail"]) for each in json.loads(capsys.readouterr().out)}


def test_a_whole_installation_is_in_order(checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--model", f"local-dir:{checkpoint}", "--precision", "float32", "--json"]) == 0
    found = findings(capsys)
    assert found["torch"][1] == torch.__version__
    assert found["weights"][0] == "ok"
    assert found["runs on"][1].endswith(", float32")
    assert found["forward"][0] == "ok"


def test_a_missing_checkpoint_is_broken(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--model", f"local-dir:{tmp_path}", "--json"]) == 1
    found = findings(capsys)
    assert found["weights"][0] == "broken"
    assert found["weights"][1]
    assert "forward" not in found


def test_a_data_folder_that_is_a_file_is_broken(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SDS_CLIP_DATA_DIR", str(tmp_path / "file"))
    assert main(["doctor", "--model", f"local-dir:{checkpoint}", "--json"]) == 1
    assert findings(capsys)["data folder"][0] == "broken"


def test_the_table_has_a_line_a_finding(checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["doctor", "--model", f"local-dir:{checkpoint}", "--json"])
    names = list(findings(capsys))
    main(["doctor", "--model", f"local-dir:{checkpoint}"])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("  ")[0] for line in lines] == names


@pytest.fixture
def of_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The settings name a database, and a folder that is not its own."""
    monkeypatch.setenv("SDS_CLIP_DATABASE_URL", f"sqlite:///{tmp_path / 'jobs.db'}")
    monkeypatch.setenv("SDS_CLIP_DATA_DIR", str(tmp_path / "wrong"))
    store = Store(f"sqlite:///{tmp_path / 'jobs.db'}")
    store.migrate()
    DataFolder(store.database, tmp_path / "right").check()
    store.close()


@pytest.mark.usefixtures("of_another")
def test_a_data_folder_of_another_database_is_broken(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["doctor", "--model", f"local-dir:{checkpoint}", "--json"])
    assert findings(capsys)["data folder"][0] == "broken"
    monkeypatch.setenv("SDS_CLIP_DATA_DIR", str(tmp_path / "right"))
    main(["doctor", "--model", f"local-dir:{checkpoint}", "--json"])
    assert findings(capsys)["data folder"][1].endswith("which belongs to the database")


@pytest.mark.usefixtures("of_another")
@pytest.mark.parametrize("command", [["backup", "backup.tar"], ["check"], ["prune"]])
def test_a_command_refuses_the_data_folder_of_another_database(
    command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(command) == 2
    assert "is not the data folder of the database" in capsys.readouterr().err
    assert not (tmp_path / "backup.tar").exists()
