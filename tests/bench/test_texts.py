"""The benchmark of texts without their padding."""

import pytest

from bench.texts import main


def test_quick_run_has_a_row_for_each_way(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--quick"]) == 0
    rows = {
        cells[1]: int(cells[2])
        for line in capsys.readouterr().out.splitlines()
        if len(cells := [cell.strip() for cell in line.split("|")]) == 6 and cells[2].isdigit()
    }
    assert rows["whole contexts"] == 77
    assert rows["without padding"] < 30
