"""What the process of `sds-clip serve` is like when it begins to serve."""

import json
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

UNUSED = (
    "accelerate", "alembic", "celery", "diffusers", "httpx", "matplotlib", "pandas", "pyarrow", "redis", "rich",
    "scipy", "sds_clip.app.fetch", "sds_clip.models.teacher", "sds_clip.models.vectors", "sds_clip.worker",
)  # fmt: skip
"""What images' URLs, a database, jobs, tables and training need."""
OF_SKLEARN = {"accelerate", "pandas", "rich", "scipy"}
"""What scikit-learn needs, if it is installed. open_clip imports transformers, and older ones import it."""
START = """
import gc, json, os, sys, torch
from sds_clip.commands.serve import serve
from sds_clip.app import main

def threads():
    return len(os.listdir("/proc/self/task"))

def report(server):
    found = {"modules": [*sys.modules], "collects": gc.isenabled(), "more threads": threads() - before}
    print(json.dumps(found))

main.DrainingServer.run = report
torch.set_num_threads(2)  # this alone starts a thread
before = threads()
serve(["--model", sys.argv[1], "--threads", "2"], standalone_mode=False)
"""


@pytest.fixture(scope="module")
def started(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-c", START, f"local-dir:{tiny_folder}"],
        cwd=tmp_path_factory.mktemp("start"),
        capture_output=True,
        text=True,
        check=True,
    )
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_service_imports_nothing_that_it_does_not_use(started: dict[str, Any]) -> None:
    older = tuple(int(part) for part in version("transformers").split(".")[:2]) < (5, 24)
    unused = {*UNUSED} - (OF_SKLEARN if older else set())
    assert not unused & {*started["modules"]}


def test_garbage_is_collected_again_once_it_serves(started: dict[str, Any]) -> None:
    assert started["collects"]


def test_no_thread_but_the_forward_thread_has_a_team_of_openmp_s(started: dict[str, Any]) -> None:
    assert started["more threads"] == 0
