"""Started in a folder that holds packages named `app`, `models`, `worker` or `demo`, we import our own."""

import subprocess
import sys
from pathlib import Path

import pytest

from sds_clip.worker import supervised
from sds_clip.worker.protocol import Exit


def run(folder: Path, *command: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        command, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=300
    )


@pytest.mark.parametrize("options", [[], ["-P"]])
def test_the_module_runs(foreign: Path, options: list[str]) -> None:
    done = run(foreign, sys.executable, *options, "-m", "sds_clip", "--version")
    assert (done.returncode, done.stderr) == (0, "")


def test_doctor_finds_nothing_broken(foreign: Path) -> None:
    done = run(foreign, sys.executable, "-m", "sds_clip", "doctor")
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_program_runs(foreign: Path) -> None:
    done = run(foreign, str(Path(sys.executable).parent / "sds-clip"), "evaluate", "--help")
    assert done.returncode == 0, done.stderr


def test_a_worker_s_process_starts(foreign: Path) -> None:
    # The input that would assign a job is closed.
    done = run(foreign, *supervised.COMMAND)
    assert done.returncode == Exit.ORPHANED, done.stderr


def test_torchrun_starts_the_module(foreign: Path) -> None:
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = run(foreign, *launcher, "-m", "sds_clip", "finetune", "--help")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("--out DIR") == 2
