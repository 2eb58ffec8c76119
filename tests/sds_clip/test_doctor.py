import json
from pathlib import Path

import pytest
import torch

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
