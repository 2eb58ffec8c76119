"""The console's own unit tests, and a rule for its sources that no linter has."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

CONSOLE = Path(__file__).parents[1] / "console"
BIN = Path(sys.executable).parent
PATH = f"{BIN}:{os.environ['PATH']}"
NPM = shutil.which("npm", path=PATH)


@pytest.mark.skipif(
    "CI" not in os.environ and (NPM is None or not (CONSOLE / "node_modules").exists()),
    reason="the console's packages are not installed: make console",
)
def test_unit_tests_of_the_console_pass() -> None:
    done = subprocess.run(
        [NPM or "npm", "--prefix", CONSOLE, "test"],
        env={**os.environ, "PATH": PATH, "NO_COLOR": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode == 0, done.stdout


def test_nothing_makes_markup_or_code_of_text() -> None:
    forbidden = re.compile(
        r"dangerouslySetInnerHTML|(inner|outer)HTML|insertAdjacentHTML|srcdoc|document\.write|\beval\(|new Function"
    )
    sources = [*(CONSOLE / "src").rglob("*.ts"), *(CONSOLE / "src").rglob("*.tsx")]
    found = [
        str(file.relative_to(CONSOLE))
        for file in sources
        if forbidden.search(file.read_text(encoding="utf-8"))
    ]
    assert sources
    assert found == []
