"""Points at which a process dies because a test armed them."""

import os
import signal
import subprocess
import sys
from pathlib import Path

from app.crash import FOLDER

VISIT_TWICE = "from app.crash import reach; reach('mid-step'); print('one'); reach('mid-step'); print('two')"


def run(folder: Path | None) -> tuple[int, str]:
    environment = os.environ if folder is None else os.environ | {FOLDER: str(folder)}
    done = subprocess.run(
        [sys.executable, "-uc", VISIT_TWICE], capture_output=True, text=True, env=environment
    )
    return done.returncode, done.stdout


def test_nobody_dies_where_nothing_is_armed(tmp_path: Path) -> None:
    assert run(None) == run(tmp_path) == (0, "one\ntwo\n")


def test_process_dies_at_the_armed_visit_and_the_next_one_lives(tmp_path: Path) -> None:
    (tmp_path / "mid-step").write_text("2")
    (tmp_path / "after-claim").touch()
    assert run(tmp_path) == (-signal.SIGKILL, "one\n")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["after-claim", "mid-step.reached"]
    assert run(tmp_path) == (0, "one\ntwo\n")
