"""A short run of the console's benchmark in a real Chromium, against a real service."""

from pathlib import Path

import pytest

from bench import console
from tests.browser.console import NEEDS_CONSOLE

pytestmark = [*NEEDS_CONSOLE, pytest.mark.long]


def test_quick_run_visits_each_page_and_opens_sessions(
    tiny_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    console.main(["--quick", "--cache", str(tmp_path), "--model", str(tiny_folder)])

    printed = capsys.readouterr().out
    assert all(f"| {page} | " in printed for page in console.pages("job"))
    assert all(f"| {name} | " in printed for name in (console.ALONE, console.WITH))
    [got] = [line for line in printed.splitlines() if line.startswith("The sessions got ")]
    assert " x 200" in got
    assert " x events" in got
    assert " x 4" not in got
    assert " x 5" not in got
