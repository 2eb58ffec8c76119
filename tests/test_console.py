"""The console's own unit tests, when they are checked, and a rule for its sources that no linter has."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
CONSOLE = ROOT / "console"
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


def test_a_commit_checks_the_console_if_it_changes_a_module_that_describes_the_api() -> None:
    code = (
        "import sys, sds_clip.app.main\n"
        "print(*(each.__file__ for name, each in sys.modules.items() if name.startswith('sds_clip.')))"
    )
    imported = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    modules = [str(Path(file).resolve().relative_to(ROOT)) for file in imported.stdout.split()]
    (repo,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    (files,) = [hook["files"] for hook in repo["hooks"] if hook["id"] == "console"]
    assert modules
    assert [file for file in modules if not re.match(files, file)] == []
