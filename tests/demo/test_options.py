"""Options and errors of the demo's commands."""

import sys

import pytest

from sds_clip.demo import folders, table, teacher_grid, teacher_validation
from sds_clip.demo.options import run


@pytest.mark.parametrize(
    ("command", "options", "message"),
    [
        (folders, ["DIR", "--items", "-3"], "'-3' is not a whole number of at least 1."),
        (teacher_validation, ["demo", "--draws", "0"], "'0' is not a whole number of at least 1."),
        (teacher_validation, ["demo", "--items", "all"], "'all' is not a whole number of at least 1."),
        (table, ["--split", "train"], "invalid choice"),
    ],
)
def test_an_option_that_cannot_be_used_is_named(
    command: object, options: list[str], message: str, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setattr(sys, "argv", ["command", *options])
    with pytest.raises(SystemExit, match="2"):
        command.main()  # type: ignore[attr-defined]
    assert message in capsys.readouterr().err


def test_a_teacher_that_is_not_there_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["teacher_grid", "--teacher", "./nowhere"])
    with pytest.raises(SystemExit, match=r"nowhere"):
        run(teacher_grid.main)
